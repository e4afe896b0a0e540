"""ONNX files that would loop for ever, take all memory, or read what is none of theirs, end in a line."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from batchcls.building.onnx.classifier import load_classifier
from batchcls.building.onnx.sandbox import check_runs
from batchcls.building.onnx.session import onnx_runner
from batchcls.errors import CheckpointError
from batchcls.networks.preprocess import Preprocess

pytestmark = pytest.mark.timeout(600)
FLOAT = TensorProto.FLOAT


def constant(value: Any, name: str, kind: Any = np.int64) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(value, kind), name)


def loop_body(*nodes: onnx.NodeProto, true: bool = False) -> onnx.GraphProto:
    """Of a Loop that adds 1 to what it carries; its condition is the one it was given, or always ``true``."""
    goes_on = helper.make_node("Constant", [], ["on"], value=constant(True, "", bool))
    given = helper.make_node("Identity", ["given"], ["on"])
    one = helper.make_node("Constant", [], ["one"], value=constant(1, "", np.float32))
    return helper.make_graph(
        [*nodes, goes_on if true else given, one, helper.make_node("Add", ["before", "one"], ["after"])],
        "body",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("given", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", FLOAT, ["n", 3]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", FLOAT, ["n", 3]),
        ],
    )


def loop(
    limit: str, goes_on: str, inner: onnx.GraphProto, given: str = "flat", result: str = "looped"
) -> onnx.NodeProto:
    return helper.make_node("Loop", [limit, goes_on, given], [result], body=inner)


def saved_classifier(path: Path, *nodes: onnx.NodeProto, last: str, shape: Any = ("n", 3, 8, 8), **more: Any) -> Path:
    """A classifier of three classes, whose ``nodes`` make ``last`` of ``flat``, (N, 3)."""
    constants = [constant(4 * np.eye(3), "w", np.float32), constant(True, "true", bool), constant([0], "zero")]
    constants += [constant(value, name) for name, value in {"huge": 1 << 62, "many": 10_000, "three": 3}.items()]
    constants += more.pop("initializers", [])
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["image"], ["mean"]),
            helper.make_node("Flatten", ["mean"], ["flat"]),
            *nodes,
            helper.make_node("MatMul", [last, "w"], ["scores"]),
        ],
        "hostile",
        [helper.make_tensor_value_info("image", FLOAT, shape)],
        [helper.make_tensor_value_info("scores", FLOAT, ["n", 3])],
        constants,
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10, **more), path)
    return path


def looping_classifier(path: Path, kind: str) -> Path:
    endless = loop("huge", "true", loop_body(), "given", "result")
    match kind:
        case "constant count":
            return saved_classifier(path, loop("huge", "true", loop_body()), last="looped")
        case "no condition":
            return saved_classifier(path, loop("huge", "", loop_body()), last="looped")
        case "no count, always true":
            return saved_classifier(path, loop("", "true", loop_body(true=True)), last="looped")
        case "neither":
            return saved_classifier(path, loop("", "", loop_body(true=True)), last="looped")
        case "through an identity":
            more = helper.make_node("Identity", ["huge"], ["also"])
            return saved_classifier(path, more, loop("also", "true", loop_body()), last="looped")
        case "nested":
            inner = loop_body(loop("many", "true", loop_body(), "before", "nested"))
            return saved_classifier(path, loop("many", "true", inner), last="looped")
        case "in a branch":
            there = helper.make_graph(
                [loop("huge", "true", loop_body(), "flat", "there")],
                "then",
                [],
                [helper.make_tensor_value_info("there", FLOAT, ["n", 3])],
            )
            choice = helper.make_node("If", ["true"], ["chosen"], then_branch=there, else_branch=there)
            return saved_classifier(path, choice, last="chosen")
        case "in a function":
            constants = [
                helper.make_node("Constant", [], ["huge"], value=constant(1 << 62, "")),
                helper.make_node("Constant", [], ["true"], value=constant(True, "", bool)),
            ]
            function = helper.make_function(
                "own", "Endless", ["given"], ["result"], [*constants, endless], [helper.make_opsetid("", 18)]
            )
            call = helper.make_node("Endless", ["flat"], ["called"], domain="own")
            return saved_classifier(path, call, last="called", functions=[function])
    raise ValueError(kind)


KINDS = ["constant count", "no condition", "no count, always true", "neither", "through an identity", "nested"]


@pytest.mark.parametrize("kind", [*KINDS, "in a branch", "in a function"])
def test_a_loop_without_an_end_is_refused_unrun(tmp_path: Path, kind: str) -> None:
    with pytest.raises(CheckpointError, match=r"holds a Loop, .*; export it without"):
        load_classifier(looping_classifier(tmp_path / "loop.onnx", kind))


def test_a_loop_with_an_end_is_a_classifier(tmp_path: Path) -> None:
    assert (
        load_classifier(
            saved_classifier(tmp_path / "loop.onnx", loop("three", "true", loop_body()), last="looped")
        ).classes
        == 3
    )


def data_dependent(path: Path) -> Path:
    """It goes on as long as a sum of the image's is above -1e30."""
    there = helper.make_node("Less", ["lowest", "sum"], ["positive"])
    summed = helper.make_node("ReduceSum", ["flat"], ["sum"], keepdims=0)
    initializers = [constant(-1e30, "lowest", np.float32)]
    return saved_classifier(
        path, summed, there, loop("", "positive", loop_body()), last="looped", initializers=initializers
    )


def test_a_loop_that_only_the_image_tells_of_is_ended_by_the_clock(tmp_path: Path) -> None:
    path = data_dependent(tmp_path / "loop.onnx")
    model = onnx.load(path)
    with pytest.raises(CheckpointError, match=r"has not answered 2 images in 1 s; export it without loops"):
        onnx_runner(path, model, "NCHW", timeout_s=1)(np.ones((2, 3, 8, 8), np.float32))
    with pytest.raises(CheckpointError, match=r"has not answered 3 images after 8 s.*; export it without loops"):
        check_runs(path, model, "NCHW", Preprocess((8, 8)), timeout_s=8)


BOMBS = {
    "ConstantOfShape": [helper.make_node("ConstantOfShape", ["sides"], ["out"])],
    "Expand": [helper.make_node("Expand", ["flat", "tall"], ["out"])],
    "Tile": [helper.make_node("Tile", ["flat", "sides"], ["out"])],
    "Resize": [helper.make_node("Resize", ["mean", "", "scales"], ["out"])],
    "Pad": [helper.make_node("Pad", ["flat", "pads"], ["out"])],
    "Range": [helper.make_node("Range", ["zeros", "huge", "ones"], ["range"])]
    + [helper.make_node("Cast", ["range"], ["out"], to=FLOAT)],
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_network_that_takes_terabytes_is_refused(tmp_path: Path, kind: str) -> None:
    initializers = [
        constant([1_000_000, 1_000_000], "sides"),
        constant([0, 0, 1 << 40, 0], "pads"),
        constant([10**12, 3], "tall"),
    ]
    initializers += [constant([1, 1, 1e6, 1e6], "scales", np.float32), constant(0, "zeros"), constant(1, "ones")]
    summed = helper.make_node("ReduceSum", ["out"], ["sum"], keepdims=0)
    added = helper.make_node("Add", ["flat", "sum"], ["added"])
    path = saved_classifier(
        tmp_path / "bomb.onnx", *BOMBS[kind], summed, added, last="added", initializers=initializers
    )
    with pytest.raises(CheckpointError, match=r"bomb\.onnx"):
        load_classifier(path)


@pytest.mark.parametrize("shape", [(10**9, 3, 8, 8), ("n", 3, 10**6, 10**6), ("n", 3, 2**62, 2**62), ("n", 3, 5000, 8)])
def test_an_input_of_absurd_sides_is_refused(tmp_path: Path, shape: tuple[Any, ...]) -> None:
    with pytest.raises(CheckpointError, match=r"large\.onnx"):
        load_classifier(saved_classifier(tmp_path / "large.onnx", last="flat", shape=shape))


@pytest.mark.parametrize("dims", [[10**12, 10**12], [1 << 62], [-1], [3, 10**9]])
def test_weights_that_claim_absurd_sides_are_refused(tmp_path: Path, dims: list[int]) -> None:
    claim = TensorProto(name="claim", data_type=FLOAT, dims=dims, raw_data=bytes(36))
    added = helper.make_node("Add", ["flat", "claim"], ["added"])
    with pytest.raises(CheckpointError, match=r"claim\.onnx"):
        load_classifier(saved_classifier(tmp_path / "claim.onnx", added, last="added", initializers=[claim]))


def external(path: Path, location: str, **more: int) -> Path:
    """A classifier that keeps three numbers in another file."""
    item = TensorProto(name="kept", data_type=FLOAT, dims=[3], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, "length": 12, **more}.items():
        item.external_data.add(key=key, value=str(value))
    return saved_classifier(
        path, helper.make_node("Add", ["flat", "kept"], ["added"]), last="added", initializers=[item]
    )


def test_data_beside_the_file_is_read(tmp_path: Path) -> None:
    np.zeros(3, np.float32).tofile(tmp_path / "weights.bin")
    assert load_classifier(external(tmp_path / "sound.onnx", "weights.bin")).classes == 3


@pytest.mark.parametrize(
    "kind", ["above", "absolute", "link", "fifo", "device", "folder", "short", "absent", "negative"]
)
def test_data_elsewhere_or_of_another_kind_is_not_read(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(12))
    path, location, more = folder / "hostile.onnx", "weights.bin", {}
    inside = folder / location
    match kind:
        case "above":
            location = "../secret.bin"
        case "absolute":
            location = str(secret)
        case "link":
            inside.symlink_to(secret)
        case "fifo":
            os.mkfifo(inside)
        case "device":
            inside.symlink_to("/dev/zero")
        case "folder":
            inside.mkdir()
        case "short":
            inside.write_bytes(bytes(11))
        case "negative":
            inside.write_bytes(bytes(100))
            more = {"offset": -4}
    with pytest.raises(CheckpointError, match=r"keeps .* in '"):
        load_classifier(external(path, location, **more))


def test_a_file_of_two_gigabytes_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "large.onnx").open("wb") as stream:
        stream.truncate((2 << 30) + 1)
    with pytest.raises(CheckpointError, match="larger than ONNX allows"):
        load_classifier(tmp_path / "large.onnx")
