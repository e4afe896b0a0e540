"""Engines in fewer bits answer like float32, on every CPU."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from click.testing import Result
from onnx import TensorProto, numpy_helper
from torch import nn

from batchcls.building.onnx.classifier import load_classifier
from batchcls.building.quantization import quantize
from batchcls.engine.backends.openvino_core import CORE
from batchcls.engine.manifest import Manifest
from batchcls.engine.postprocess import to_predictions
from tests.engines import engine_logits, largest_difference, onnxruntime_logits, opened_engine
from tests.quantized_engines import (
    IMAGES,
    SIDE,
    build_result,
    built_engine,
    convolutional_network,
    normalized,
    resized_images,
)


def types_of_weights(folder: Path) -> set[int]:
    return {item.data_type for item in onnx.load(folder / "model.onnx").graph.initializer if item.dims}


def test_an_int8_engine_answers_like_float32(small_int8: Path, small_fp32: Path, field_images: Path) -> None:
    pixels = resized_images(field_images, SIDE)
    exact, ours = engine_logits(small_fp32, pixels, precision="f32"), engine_logits(small_int8, pixels)

    assert len(set(to_predictions(exact).labels)) == 3
    assert 0 < largest_difference(ours, exact) < 0.1
    assert Manifest.read(small_int8).precision == "int8"
    assert {"QuantizeLinear", "DequantizeLinear"} <= {
        n.op_type for n in onnx.load(small_int8 / "model.onnx").graph.node
    }
    with closing(opened_engine(small_int8, threads=1)) as engine:
        assert engine.info.precision == "int8"


def computed_in_int8(folder: Path) -> list[bool]:
    """Of the convolutions, in OpenVINO's order."""
    model = CORE.read_model(folder / "model.onnx")
    model.remove_result(model.get_results()[1])  # features, whose convolutions take means
    model.reshape([8, SIDE, SIDE, 3])
    steps = [step.get_rt_info() for step in CORE.compile_model(model, "CPU").get_runtime_model().get_ordered_ops()]
    kernels = [step["primitiveType"].astype(str) for step in steps if step["layerType"].astype(str) == "Convolution"]
    return ["8" in kernel.rpartition("_")[2] for kernel in kernels]  # such as brgconv_avx512_I8


def test_an_int8_build_leaves_in_float32_what_int8_would_spoil_and_says_so(
    partly_int8_build: tuple[Result, Path], small_int8: Path
) -> None:
    result, engine = partly_int8_build

    assert "int8 with 1 layer left in float32: c; top-1 agreement over 24 images of --calibrate is 1.0000\n" in (
        result.stderr
    )
    verification = Manifest.read(engine).verification
    assert verification is not None
    assert (verification.images, verification.top1_agreement) == (IMAGES, 1.0)
    assert computed_in_int8(engine) == [True, False]
    assert computed_in_int8(small_int8) == [True, True]


def test_what_int8_would_spoil_is_spoiled_without_that(unequal_onnx: Path, field_images: Path) -> None:
    """Else the test above would say little."""
    images = [image[None] for image in normalized(resized_images(field_images, SIDE))]
    model = load_classifier(unequal_onnx).model

    plain, mended = quantize(model, images, 0), quantize(model, images, 0.995)

    assert (plain.float_layers, mended.float_layers) == ((), ("network/c",))
    assert plain.agreement < 0.995 <= mended.agreement


def test_normalization_is_not_computed_in_int8(small_int8: Path) -> None:
    graph = onnx.load(small_int8 / "model.onnx").graph
    operators = [node.op_type for node in graph.node]

    assert operators.index("QuantizeLinear") > operators.index("Mul") > operators.index("Sub")


def test_an_int8_engine_of_channels_last_answers_like_float32(
    field_images: Path, tmp_path: Path, small_fp32: Path
) -> None:
    onnx.save(convolutional_network(field_images, "NHWC"), tmp_path / "a.onnx")

    engine = built_engine(
        tmp_path / "a.onnx",
        "--out",
        tmp_path / "e",
        "--labels",
        "a,b,c",
        "--precision",
        "int8",
        "--calibrate",
        field_images,
    )

    pixels = resized_images(field_images, SIDE)
    assert (
        0 < largest_difference(engine_logits(engine, pixels), engine_logits(small_fp32, pixels, precision="f32")) < 0.1
    )


@pytest.mark.parametrize(
    ("name", "weights", "allowed"),
    [("resnet_bf16", TensorProto.BFLOAT16, 0.03), ("resnet_int8", TensorProto.INT8, 0.05)],
)
def test_a_trained_network_answers_like_float32(
    name: str, weights: int, allowed: float, resnet: tuple[nn.Module, Path], field_images: Path, request: Any
) -> None:
    engine = request.getfixturevalue(name)
    pixels = resized_images(field_images, 224)[::4]
    with torch.inference_mode():
        exact = resnet[0](torch.from_numpy(normalized(pixels))).numpy()

    ours = engine_logits(engine, pixels)

    assert 0 < largest_difference(ours, exact) < allowed
    assert weights in types_of_weights(engine)
    assert Manifest.read(engine).precision == name.partition("_")[2]


def write_broken_image(folder: Path) -> None:
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"\xff\xd8 no more")


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (None, "int8 needs typical images to take its ranges from; name a folder: --calibrate DIR"),
        (Path.mkdir, "no image that can be read was found in "),
        (write_broken_image, "no image that can be read was found in "),
    ],
    ids=["none", "empty", "broken"],
)
def test_without_typical_images_there_is_no_int8(
    fill: Callable[[Path], None] | None, message: str, small_onnx: Path, tmp_path: Path
) -> None:
    options: list[str | Path] = ["--labels", "a,b,c", "--precision", "int8"]
    if fill:
        fill(tmp_path / "images")
        options += ["--calibrate", tmp_path / "images"]

    result = build_result(small_onnx, "--out", tmp_path / "e", *options)

    assert result.exit_code == 1
    assumed, error = result.stderr.splitlines()
    assert assumed.startswith("input     32x32")
    assert message in error
    assert not (tmp_path / "e").exists()
    assert {path.name for path in tmp_path.iterdir()} <= {"images"}


@pytest.mark.parametrize(
    ("takes", "precision", "computes"),
    [
        (TensorProto.FLOAT16, "int8", "fp16"),
        (TensorProto.UINT8, "int8", "fp32"),
        (TensorProto.FLOAT, "bf16", "fp32"),
        (TensorProto.FLOAT, "fp16", "fp32"),
        (TensorProto.FLOAT16, "fp32", "fp16"),
    ],
)
def test_an_onnx_file_is_not_made_what_it_cannot_be(
    takes: int, precision: str, computes: str, field_images: Path, tmp_path: Path
) -> None:
    onnx.save(convolutional_network(field_images, takes=takes), tmp_path / "a.onnx")

    result = build_result(
        tmp_path / "a.onnx",
        "--out",
        tmp_path / "e",
        "--labels",
        "a,b,c",
        "--precision",
        precision,
        "--calibrate",
        field_images,
    )

    assert result.exit_code == 1
    assert f"computes in {computes}, which cannot be made {precision}; " in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]


@pytest.mark.parametrize("name", ["small_int8", "partly_int8", "resnet_int8"])
def test_no_pair_of_products_overflows_sixteen_bits(name: str, request: Any) -> None:
    """Which is how a CPU without VNNI adds them."""
    folder = request.getfixturevalue(name)
    graph = onnx.load(folder / "model.onnx").graph
    weights = [numpy_helper.to_array(i) for i in graph.initializer if i.data_type == TensorProto.INT8 and i.dims]
    weights = [values.astype(int) for values in weights if values.ndim > 1]

    assert weights
    assert max(2 * 255 * np.abs(values).max() for values in weights) <= 2**15 - 1


@pytest.mark.parametrize("name", ["small_int8", "partly_int8"])
def test_an_int8_engine_answers_as_onnx_defines_it(name: str, field_images: Path, request: Any) -> None:
    folder = request.getfixturevalue(name)
    pixels = resized_images(field_images, SIDE)

    expected = onnxruntime_logits((folder / "model.onnx").read_bytes(), pixels)
    assert largest_difference(engine_logits(folder, pixels), expected) < 0.01
