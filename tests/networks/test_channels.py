"""Networks that were trained on BGR, or on pixels from the nearest place, give their own answers."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow.parquet as pq
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from rich.console import Console

from batchcls.building.build import BuildOptions, build_engine
from batchcls.engine.manifest import Manifest
from batchcls.networks.architectures import SmallCnn
from batchcls.networks.preprocess import Preprocess
from batchcls.networks.transforms import input_transform
from tests.commandline import invoked
from tests.conftest import draw

SIDE = 64
VALUES: dict[str, Any] = {
    "labels": ("a", "b", "c"),
    "size_px": (SIDE, SIDE),
    "mean": (0.3, 0.5, 0.7),
    "std": (0.2, 0.3, 0.4),
    "channels": "BGR",
    "interpolation": "nearest",
}


@pytest.fixture(scope="module")
def network() -> SmallCnn:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        return SmallCnn(3).eval()


@pytest.fixture(scope="module")
def fields(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fields")
    for seed in range(6):
        draw(folder / f"{seed}.jpg", seed, (300 + seed, 200))
        draw(folder / f"{seed}.png", seed, (200, 300 + seed))
    return folder


def in_opencv(path: Path, network: SmallCnn) -> Any:
    """Probabilities as OpenCV's and Caffe's users come to them: the file's pixels, BGR, each from the nearest place."""
    with path.open("rb") as stream, Image.open(stream) as image:
        pixels = np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.NEAREST))
    normalized = (pixels[..., ::-1] / 255 - VALUES["mean"]) / VALUES["std"]
    with torch.inference_mode():
        return network(torch.from_numpy(normalized.transpose(2, 0, 1)[None]).float()).softmax(1)[0].numpy()


def rows(engine: Path, fields: Path, out: Path, *options: str) -> dict[str, Any]:
    done = invoked(fields, "--out", out, "--engine", engine, *options)
    assert done.exit_code == 0, done.output
    return {row["path"]: row["probabilities"] for row in pq.read_table(out).to_pylist()}


@pytest.mark.parametrize(("decoder", "backend"), [("turbo", "openvino"), ("pillow", "torch")])
def test_a_checkpoint_trained_on_bgr_and_nearest_pixels_answers_as_it_did(
    network: SmallCnn, fields: Path, tmp_path: Path, quiet: Console, decoder: str, backend: str
) -> None:
    torch.save(network.state_dict(), tmp_path / "cnn.pth")
    values = {**VALUES, "architecture": "cnn", "precision": "fp32"}

    options = BuildOptions(values=values, verification_images=fields)
    build_engine(tmp_path / "cnn.pth", tmp_path / "engine", options, quiet)

    manifest = Manifest.read(tmp_path / "engine")
    assert (manifest.preprocess.channels, manifest.preprocess.interpolation) == ("BGR", "nearest")
    assert manifest.verification is not None
    assert manifest.verification.top1_agreement == 1
    found = rows(tmp_path / "engine", fields, tmp_path / "o.parquet", "--decoder", decoder, "--backend", backend)
    assert len(found) == 12
    for name, probabilities in found.items():
        np.testing.assert_allclose(probabilities, in_opencv(fields / name, network), atol=0.01)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("takes", [TensorProto.FLOAT, TensorProto.UINT8])
def test_an_onnx_classifier_of_bgr_sees_bgr(
    fields: Path, tmp_path: Path, quiet: Console, layout: str, takes: int
) -> None:
    axes, shape = ([2, 3], [1, 3, SIDE, SIDE]) if layout == "NCHW" else ([1, 2], [1, SIDE, SIDE, 3])
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["float", "axes"], ["mean"], keepdims=0),
            helper.make_node("Mul", ["mean", "gain"], ["scores"]),
        ],
        "means",
        [helper.make_tensor_value_info("image", takes, ["batch", *shape[1:]])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 3])],
        [
            numpy_helper.from_array(np.array(axes), "axes"),
            numpy_helper.from_array(np.float32(4 if takes == TensorProto.FLOAT else 4 / 255), "gain"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), tmp_path / "m.onnx")
    values = {**VALUES, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}

    build_engine(tmp_path / "m.onnx", tmp_path / "engine", BuildOptions(values=values), quiet)

    for name, probabilities in rows(tmp_path / "engine", fields, tmp_path / "o.parquet").items():
        with Image.open(fields / name) as image:
            pixels = np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.NEAREST))
        blue_first = np.exp(4 * pixels.mean(axis=(0, 1))[::-1] / 255)
        np.testing.assert_allclose(probabilities, blue_first / blue_first.sum(), atol=0.02)


def test_training_reverses_the_channels_before_it_normalizes() -> None:
    preprocess = Preprocess((2, 2), interpolation="nearest", channels="BGR", mean=(0.0, 0.0, 0.5), std=(1.0, 1.0, 0.5))
    normalized = input_transform(preprocess)(Image.new("RGB", (9, 7), (255, 0, 51)))
    np.testing.assert_allclose(normalized[:, 0, 0], [0.2, 0, 1], atol=1e-6)


def test_an_engine_folder_of_an_older_version_has_rgb(tiny_engine: Path, tmp_path: Path) -> None:
    text = (tiny_engine / "engine.json").read_text()
    (tmp_path / "engine.json").write_text("\n".join(line for line in text.splitlines() if '"channels"' not in line))
    assert '"channels"' in text
    assert Manifest.read(tmp_path).preprocess.channels == "RGB"
