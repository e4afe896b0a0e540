"""Networks of one channel, gray, answer as they do in training."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from rich.console import Console
from torch import nn
from torchvision import transforms

from batchcls.building.build import BuildOptions, build_engine
from batchcls.errors import CheckpointError, RecipeError
from batchcls.networks.architectures import PixelClassifier
from batchcls.networks.export import export_classifier
from batchcls.networks.preprocess import Preprocess
from batchcls.networks.recipe import Recipe
from batchcls.records import Pixels
from batchcls.training.setup import starting_recipe
from tests.commandline import invoked
from tests.conftest import draw

SIDE, CLASSES = 24, 3
LABELS = ("a", "b", "c")
GRAY = Preprocess((SIDE, SIDE), channels="L", mean=(0.4,), std=(0.3,))


class Convolutions(nn.Module):
    """A classifier of gray images."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(4))
        self.fc = nn.Linear(64, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = 5 * self.fc(self.features(images).flatten(1))
        return logits


@pytest.fixture(scope="module")
def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        return Convolutions().eval()


@pytest.fixture(scope="module")
def fields(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fields")
    for seed in range(5):
        draw(folder / f"{seed}.jpg", seed, (300 + seed, 200))
        draw(folder / f"{seed}.png", seed, (200, 300 + seed))
        with Image.open(folder / f"{seed}.png") as image:
            image.convert("L").save(folder / f"gray{seed}.png")
    return folder


def in_pillow(pixels: Pixels) -> Pixels:
    """(N, H, W, 1) uint8, by Pillow."""
    return np.stack([np.asarray(Image.fromarray(item).convert("L"))[..., None] for item in pixels])


def normalized(pixels: Pixels) -> torch.Tensor:
    return torch.from_numpy((in_pillow(pixels).transpose(0, 3, 1, 2) / np.float32(255) - 0.4) / 0.3).float()


def drawn_pixels() -> Pixels:
    return np.random.default_rng(3).integers(0, 256, (9, SIDE, SIDE, 3), np.uint8)


def saved_onnx(path: Path, *, layout: str, takes: int, opset: int) -> onnx.ModelProto:
    """A linear classifier of gray images of 0 to 255."""
    weights = np.random.default_rng(8).normal(0, 0.2 / 255, (SIDE * SIDE, CLASSES))
    weights -= weights.mean(axis=0)
    shape = [1, SIDE, SIDE] if layout == "NCHW" else [SIDE, SIDE, 1]
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Flatten", ["float"], ["flat"]),
            helper.make_node("MatMul", ["flat", "w"], ["scores"]),
        ],
        "gray",
        [helper.make_tensor_value_info("image", takes, ["n", *shape])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", CLASSES])],
        [numpy_helper.from_array(weights.astype(np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, path)
    return model


@given(arrays(np.uint8, (2, 3, 3)))
def test_gray_is_pillows(pixels: Pixels) -> None:
    np.testing.assert_array_equal(GRAY.ordered(pixels[None]), in_pillow(pixels[None]))


@pytest.mark.parametrize(("precision", "arithmetic"), [("fp32", "f32"), ("fp16", "bf16"), ("bf16", "bf16")])
def test_an_exported_network_of_gray_answers_as_it_did(
    network: nn.Module, tmp_path: Path, precision: str, arithmetic: str
) -> None:
    openvino = pytest.importorskip("openvino")
    pixels = drawn_pixels()
    with torch.inference_mode():
        expected = network(normalized(pixels)).numpy()
        classifier = PixelClassifier(Convolutions(), GRAY, torch.float32).eval()
        classifier.network.load_state_dict(network.state_dict())
        np.testing.assert_allclose(classifier(torch.from_numpy(pixels)), expected, atol=1e-5)

    export_classifier(network, GRAY, precision, tmp_path / "gray.onnx")

    compiled = openvino.compile_model(tmp_path / "gray.onnx", "CPU", {"INFERENCE_PRECISION_HINT": arithmetic})
    exact = precision == "fp32" and arithmetic == "f32"
    np.testing.assert_allclose(compiled(pixels)[0], expected, atol=1e-5 if exact else 0.05)


def test_files_are_classified_as_a_training_on_gray_images_sees_them(
    network: nn.Module, fields: Path, tmp_path: Path, quiet: Console
) -> None:
    torch.onnx.export(network, (torch.zeros(1, 1, SIDE, SIDE),), tmp_path / "gray.onnx", verbose=False)
    values: dict[str, Any] = {"labels": LABELS, "mean": (0.4,), "std": (0.3, 0.3, 0.3)}
    options = BuildOptions(values=values, verification_images=fields)
    build_engine(tmp_path / "gray.onnx", tmp_path / "engine", options, quiet)

    done = invoked(fields, "--out", tmp_path / "o.parquet", "--precision", "fp32", "--engine", tmp_path / "engine")
    assert done.exit_code == 0, done.output

    in_training = transforms.Compose(
        [transforms.Resize((SIDE, SIDE)), transforms.ToTensor(), transforms.Normalize(0.4, 0.3)]
    )
    rows = pq.read_table(tmp_path / "o.parquet").to_pylist()
    assert len(rows) == 15
    for row in rows:
        with Image.open(fields / row["path"]) as image, torch.inference_mode():
            expected = network(in_training(image.convert("L"))[None]).softmax(1)[0]
        np.testing.assert_allclose(row["probabilities"], expected, atol=0.01)


def test_a_gray_network_in_int8_agrees_with_itself(fields: Path, tmp_path: Path, quiet: Console) -> None:
    saved_onnx(tmp_path / "gray.onnx", layout="NHWC", takes=TensorProto.FLOAT, opset=18)
    values = {"labels": LABELS, "mean": (0.0,), "std": (1 / 255,), "precision": "int8"}
    options = BuildOptions(values=values, calibration_images=fields, verification_images=fields)

    manifest = build_engine(tmp_path / "gray.onnx", tmp_path / "engine", options, quiet)

    assert manifest.verification is not None
    assert manifest.verification.top1_agreement == 1


def test_mean_and_std_of_gray_are_one_number_each() -> None:
    assert (Preprocess(channels="L").mean, Preprocess(channels="L").std) == ((0.5,), (0.5,))
    assert Preprocess(channels="L", mean=(0.2, 0.2, 0.2), std=(1.0,)) == Preprocess(channels="L", mean=(0.2,), std=(1,))
    assert Recipe.compose(None, {"channels": "L"}).preprocess.mean == (0.5,)
    assert Recipe().with_values({"channels": "L"}).with_values({"channels": "RGB"}) == Recipe()
    with pytest.raises(RecipeError, match=r"mean is .*; it must hold one number"):
        Preprocess(channels="L", mean=(0.2, 0.2, 0.3))
    with pytest.raises(RecipeError, match=r"std is .*; it must hold three numbers above 0"):
        Preprocess(std=(0.5,))


@pytest.mark.parametrize(
    ("shape", "values", "message"),
    [
        (["n", 1, SIDE, SIDE], {"channels": "RGB"}, 'one channel of gray; set channels = "L" in the recipe'),
        (["n", SIDE, SIDE, 3], {"channels": "L"}, "three channels; leave channels out of the recipe"),
        (["n", 4, SIDE, SIDE], {}, "neither three channels of color nor one of gray"),
    ],
)
def test_channels_that_a_network_does_not_take_are_refused(
    tmp_path: Path, quiet: Console, shape: list[int | str], values: dict[str, Any], message: str
) -> None:
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["image"], ["scores"])],
        "any",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(onnx.shape_inference.infer_shapes(model), tmp_path / "any.onnx")

    with pytest.raises(CheckpointError, match=message):
        build_engine(tmp_path / "any.onnx", tmp_path / "engine", BuildOptions(values=values), quiet)


def test_a_training_on_gray_images_is_refused() -> None:
    with pytest.raises(RecipeError, match="networks that are trained here take three channels"):
        starting_recipe(None, {"channels": "L"}, "")
