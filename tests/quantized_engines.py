"""Fixtures: small engines in several precisions, built once for all tests."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from batchcls.cli import main
from batchcls.records import Pixels
from tests.conftest import draw

if TYPE_CHECKING:
    from torch import nn


SIDE = 32
MEAN, STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
IMAGES = 24


def build_result(*arguments: str | Path) -> Result:
    """Output and exit code of `batchcls build`, without a plan."""
    return CliRunner().invoke(main, ["build", *map(str, arguments), "--device", "cpu"])


def built_engine(*arguments: str | Path) -> Path:
    """The engine folder that a build has made."""
    result = build_result(*arguments)
    assert result.exit_code == 0, result.output
    return Path(arguments[arguments.index("--out") + 1])


@pytest.fixture(scope="session")
def field_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images in three tints of one brightness."""
    folder = tmp_path_factory.mktemp("fields")
    for seed in range(IMAGES):
        tint = np.roll([1, 0.9, 0.8], seed)
        pixels = np.asarray(Image.open(draw(folder / f"{seed:02d}.png", seed, (160, 120))))
        Image.fromarray((pixels * tint).astype(np.uint8)).save(folder / f"{seed:02d}.png")
    return folder


def resized_images(folder: Path, side: int) -> Pixels:
    """(N, side, side, 3) uint8 RGB: the images of a folder, by name."""
    paths = sorted(folder.glob("*.png"))
    return np.stack([np.asarray(Image.open(path).resize((side, side), Image.Resampling.BILINEAR)) for path in paths])


def normalized(pixels: Pixels) -> npt.NDArray[np.float32]:
    """(N, 3, H, W) float32 of (N, H, W, 3) uint8."""
    return np.ascontiguousarray(((pixels / np.float32(255) - MEAN) / STD).transpose(0, 3, 1, 2))


def convolutional_network(
    field_images: Path, layout: str = "NCHW", takes: int = TensorProto.FLOAT, loudest: float = 1
) -> onnx.ModelProto:
    """Two convolutions, each with a ReLU behind it, and an answer in which the fields differ.

    Args:
        loudest: By how much the first channel between them is louder than it would be; the second takes it back.
    """
    import torch  # not on machines that only run engines

    random = np.random.default_rng(3)
    w1, b1 = random.normal(0, 0.25, (8, 3, 3, 3)), random.normal(0, 0.1, 8)
    w2, b2 = random.normal(0, 0.15, (16, 8, 3, 3)), random.normal(0, 0.1, 16)
    images = torch.from_numpy(normalized(resized_images(field_images, SIDE))).double()
    hidden = torch.conv2d(images, torch.from_numpy(w1), torch.from_numpy(b1), padding=1).relu()
    hidden = torch.conv2d(hidden, torch.from_numpy(w2), torch.from_numpy(b2), padding=1, stride=2).relu()
    features = hidden.mean((2, 3)).numpy()
    # In the two directions in which they differ most, so that no answer is a small difference of large numbers.
    most = np.linalg.svd(features - features.mean(axis=0), full_matrices=False)[2][:2].T
    w3 = most / (features @ most).std(axis=0) @ np.array([[1.5, -0.75, -0.75], [0, 1.3, -1.3]])
    b3 = -(features @ w3).mean(axis=0)
    w1[0], b1[0], w2[:, 0] = w1[0] * loudest, b1[0] * loudest, w2[:, 0] / loudest
    weights = {"w1": w1, "b1": b1, "w2": w2, "b2": b2, "w3": w3, "b3": b3}
    numbers = np.float16 if takes == TensorProto.FLOAT16 else np.float32
    before, nodes = "image", []
    if takes == TensorProto.UINT8:
        nodes.append(helper.make_node("Cast", [before], ["float"], to=TensorProto.FLOAT))
        before = "float"
    if layout == "NHWC":
        nodes.append(helper.make_node("Transpose", [before], ["planes"], perm=[0, 3, 1, 2]))
        before = "planes"
    nodes += [
        helper.make_node("Conv", [before, "w1", "b1"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2", "b2"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("GlobalAveragePool", ["d"], ["e"]),
        helper.make_node("Flatten", ["e"], ["f"]),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["scores"]),
    ]
    shape = [3, SIDE, SIDE] if layout == "NCHW" else [SIDE, SIDE, 3]
    answers = TensorProto.FLOAT16 if takes == TensorProto.FLOAT16 else TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "convolutional",
        [helper.make_tensor_value_info("image", takes, ["batch", *shape])],
        [helper.make_tensor_value_info("scores", answers, ["batch", 3])],
        [numpy_helper.from_array(value.astype(numbers), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.fixture(scope="session")
def small_onnx(field_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX file of two convolutions and three classes."""
    path = tmp_path_factory.mktemp("onnx") / "small.onnx"
    onnx.save(convolutional_network(field_images), path)
    return path


@pytest.fixture(scope="session")
def small_fp32(small_onnx: Path) -> Path:
    """A float32 engine of `small_onnx`."""
    return built_engine(small_onnx, "--out", small_onnx.parent / "fp32", "--labels", "a,b,c")


@pytest.fixture(scope="session")
def small_int8(small_onnx: Path, field_images: Path) -> Path:
    """An int8 engine of `small_onnx`."""
    out = small_onnx.parent / "int8"
    return built_engine(
        small_onnx, "--out", out, "--labels", "a,b,c", "--precision", "int8", "--calibrate", field_images
    )


@pytest.fixture(scope="session")
def unequal_onnx(field_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX file that answers as `small_onnx`, with a channel so loud that int8 leaves nothing of the others."""
    path = tmp_path_factory.mktemp("onnx") / "unequal.onnx"
    onnx.save(convolutional_network(field_images, loudest=100), path)
    return path


@pytest.fixture(scope="session")
def partly_int8_build(unequal_onnx: Path, field_images: Path) -> tuple[Result, Path]:
    """The output of a build that leaves a layer in float32, and its engine folder."""
    out = unequal_onnx.parent / "e"
    options = ("--labels", "a,b,c", "--precision", "int8", "--calibrate", field_images, "--verify", field_images)
    result = build_result(unequal_onnx, "--out", out, *options)
    assert result.exit_code == 0, result.output
    return result, out


@pytest.fixture(scope="session")
def partly_int8(partly_int8_build: tuple[Result, Path]) -> Path:
    """An int8 engine with a layer left in float32."""
    return partly_int8_build[1]


RESNET_OPTIONS = ("--labels", "a,b,c,d", "--architecture", "resnet18")


@pytest.fixture(scope="session")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> "tuple[nn.Module, Path]":
    """A ResNet-18 for four classes with statistics like a trained one's, and its checkpoint."""
    import torch
    import torchvision
    from torch import nn

    path = tmp_path_factory.mktemp("checkpoints") / "resnet.pth"
    with torch.random.fork_rng():
        torch.manual_seed(2)
        network = torchvision.models.resnet18(num_classes=4).eval()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean, 0, 0.1)
                nn.init.uniform_(module.running_var, 0.8, 1.2)
                nn.init.normal_(module.bias, 0, 0.1)
    torch.save(network.state_dict(), path)
    return network, path


@pytest.fixture(scope="session")
def resnet_bf16(resnet: "tuple[nn.Module, Path]") -> Path:
    """A bfloat16 engine of `resnet`."""
    out = resnet[1].parent / "bf16"
    return built_engine(resnet[1], "--out", out, *RESNET_OPTIONS, "--precision", "bf16")


@pytest.fixture(scope="session")
def resnet_int8(resnet: "tuple[nn.Module, Path]", field_images: Path) -> Path:
    """An int8 engine of `resnet`."""
    few = resnet[1].parent / "few"
    few.mkdir()
    for path in sorted(field_images.iterdir())[::6]:
        shutil.copy(path, few)
    out = resnet[1].parent / "int8"
    return built_engine(resnet[1], "--out", out, *RESNET_OPTIONS, "--precision", "int8", "--calibrate", few)


@pytest.fixture
def altered_engine(small_fp32: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of an engine folder whose engine.json says something else; a field that is ``...`` is left out."""

    def change(**field_images: Any) -> Path:
        folder = Path(shutil.copytree(small_fp32, tmp_path / "changed"))
        values = json.loads((folder / "engine.json").read_text()) | field_images
        (folder / "engine.json").write_text(json.dumps({k: v for k, v in values.items() if v is not ...}))
        return folder

    return change
