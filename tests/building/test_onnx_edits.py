"""Edits of an ONNX graph change nothing but what they are for."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from rich.console import Console

from batchcls.building.gpu_plans import build_plans_for
from batchcls.building.onnx.edits import with_signed_activations
from batchcls.building.tensorrt_plan import PlanOptions
from batchcls.engine.manifest import Manifest, sha256
from batchcls.engine.plan_sidecar import Sidecar
from batchcls.errors import EngineError
from tests.engines import largest_difference, onnxruntime_logits
from tests.quantized_engines import SIDE, resized_images


def types_of_zero_points(content: bytes) -> set[int]:
    graph = onnx.load_from_string(content).graph
    constants = {item.name: item.data_type for item in graph.initializer}
    steps = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert all(len(node.input) == 3 for node in steps)
    return {constants[node.input[2]] for node in steps}


@pytest.mark.parametrize(("name", "side"), [("small_int8", SIDE), ("resnet_int8", 224)])
def test_signed_activations_answer_like_unsigned_ones(name: str, side: int, field_images: Path, request: Any) -> None:
    content = (request.getfixturevalue(name) / "model.onnx").read_bytes()
    pixels = resized_images(field_images, side)[::3]

    signed = with_signed_activations(content)

    assert types_of_zero_points(content) == {TensorProto.UINT8, TensorProto.INT8}
    assert types_of_zero_points(signed) == {TensorProto.INT8}
    ours, theirs = onnxruntime_logits(signed, pixels), onnxruntime_logits(content, pixels)
    assert 0 < largest_difference(ours, theirs) < 0.05


def test_without_the_wider_steps_signed_activations_would_be_cut_off(small_int8: Path, field_images: Path) -> None:
    """That the images reach into the upper half, without which the comparison above would say little."""
    content, pixels = (small_int8 / "model.onnx").read_bytes(), resized_images(field_images, SIDE)
    narrow = onnx.load_from_string(with_signed_activations(content))
    before = {item.name: item for item in onnx.load_from_string(content).graph.initializer}
    for item in narrow.graph.initializer:
        if item.name.startswith("scale_"):
            item.CopyFrom(before[item.name])

    ours, theirs = onnxruntime_logits(narrow.SerializeToString(), pixels), onnxruntime_logits(content, pixels)

    assert largest_difference(ours, theirs) > 0.1


def test_what_is_not_quantized_is_left_as_it_is(small_fp32: Path) -> None:
    content = (small_fp32 / "model.onnx").read_bytes()

    assert onnx.load_from_string(with_signed_activations(content)) == onnx.load_from_string(content)


@pytest.mark.parametrize("zero_point", [1, 128, 255])
def test_a_zero_point_that_tensorrt_cannot_compute_with_is_refused(small_int8: Path, zero_point: int) -> None:
    model = onnx.load(small_int8 / "model.onnx")
    unsigned = next(item for item in model.graph.initializer if item.data_type == TensorProto.UINT8)
    unsigned.CopyFrom(numpy_helper.from_array(np.array(zero_point, np.uint8), unsigned.name))

    with pytest.raises(EngineError, match="a zero point that is not 0, which TensorRT cannot compute with"):
        with_signed_activations(model.SerializeToString())


@pytest.mark.parametrize("name", ["small_fp32", "small_int8", "partly_int8", "resnet_bf16", "resnet_int8"])
def test_tensorrt_makes_plans_in_each_precision(
    name: str, request: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    folder = request.getfixturevalue(name)
    engine = Path(shutil.copytree(folder, tmp_path / "e"))

    build_plans_for(engine, ["sm86", "sm89", "sm120"], PlanOptions(8), Console(quiet=True))

    warnings = [record.getMessage() for record in caplog.records if record.name == "batchcls.tensorrt"]
    assert warnings == []  # as there are when it takes unsigned bytes for signed ones
    manifest = Manifest.read(engine)
    for card in ("sm86", "sm89", "sm120"):
        said = Sidecar.read(engine / "plans" / f"{card}-any-tensorrt_rtx.json")
        plan = engine / "plans" / f"{card}-any-tensorrt_rtx.plan"
        assert said.precision == manifest.precision == name.rpartition("_")[2]
        assert said.onnx_sha256 == manifest.onnx_sha256 == sha256(engine / "model.onnx")
        assert (said.plan_sha256, said.plan_bytes) == (sha256(plan), plan.stat().st_size)
