"""An ONNX classifier keeps its answers when it becomes an engine, whatever its layout, type and closing layer."""

from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from rich.console import Console

from batchcls.building.build import BuildOptions, build_engine
from batchcls.building.onnx.classifier import load_classifier
from batchcls.engine.manifest import Manifest
from batchcls.engine.postprocess import to_predictions
from batchcls.errors import BatchclsError, CheckpointError, RecipeError
from tests.engines import opened_engine

HEIGHT, WIDTH = 10, 7
MEAN, STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
SHAPES = {"NCHW": [3, HEIGHT, WIDTH], "NHWC": [HEIGHT, WIDTH, 3]}
NUMPY = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16, TensorProto.UINT8: np.uint8}


def classifier(
    *,
    layout: str = "NCHW",
    takes: int = TensorProto.FLOAT,
    classes: int = 3,
    ending: tuple[str, ...] = (),
    batch: str | int = "batch",
    names: tuple[str, str] = ("image", "scores"),
) -> onnx.ModelProto:
    """Every pixel weighs in its answer; ``ending`` names the operators after the last linear layer."""
    weights_type = np.float16 if takes == TensorProto.FLOAT16 else np.float32
    weights = np.random.default_rng(8).normal(0, 0.15, (3 * HEIGHT * WIDTH, classes))
    weights = (weights - weights.mean(axis=0)).astype(weights_type)
    constants = {"w": weights, "scale": np.float32(4 / 255), "shape": np.array([1, len(weights)])}
    inner = names[1]  # a name that the file may use within, too
    nodes, before = [], names[0]
    if takes == TensorProto.UINT8:
        nodes = [
            helper.make_node("Cast", [before], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["float", "scale"], ["scaled"]),
        ]
        before = "scaled"
    flatten = ("Flatten", [before]) if batch == "batch" else ("Reshape", [before, "shape"])  # as exporters do
    nodes += [helper.make_node(*flatten, ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["before0"])]
    for number, operator in enumerate(ending):
        attributes = {"to": TensorProto.FLOAT} if operator == "Cast" else {}
        nodes.append(helper.make_node(operator, [f"before{number}"], [f"before{number + 1}"], **attributes))
    nodes[-1].output[0] = inner
    answers = TensorProto.FLOAT if takes == TensorProto.UINT8 or "Cast" in ending else takes
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info(names[0], takes, [batch, *SHAPES[layout]])],
        [helper.make_tensor_value_info(inner, answers, [batch, classes])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def probabilities_by_hand(
    model: onnx.ModelProto, layout: str, takes: int, pixels: npt.NDArray[np.uint8]
) -> npt.NDArray[np.float32]:
    images = pixels if takes == TensorProto.UINT8 else (pixels / np.float32(255) - MEAN) / STD
    ordered = images if layout == "NHWC" else images.transpose(0, 3, 1, 2)
    fed = ordered.astype(NUMPY[takes])
    name = model.graph.input[0].name
    evaluator = ReferenceEvaluator(model)
    answer = np.concatenate([evaluator.run(None, {name: image[None]})[0] for image in fed]).astype(np.float32)
    closing_operators = {node.op_type for node in model.graph.node}
    if "Sigmoid" in closing_operators:
        return np.concatenate([1 - answer, answer], axis=1)
    if "Softmax" in closing_operators:
        return answer
    exponentials = np.exp(answer)
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def built_manifest(model: onnx.ModelProto, folder: Path, **values: Any) -> Manifest:
    onnx.save(model, folder / "own.onnx")
    values = {"labels": ("a", "b", "c"), **values}
    return build_engine(folder / "own.onnx", folder / "engine", BuildOptions(values=values), Console(quiet=True))


@pytest.mark.parametrize(
    "own",
    [
        {"layout": "NCHW"},
        {"layout": "NHWC"},
        {"layout": "NHWC", "takes": TensorProto.UINT8},
        {"layout": "NCHW", "takes": TensorProto.UINT8, "ending": ("Softmax",)},
        {"takes": TensorProto.FLOAT16},
        {"layout": "NHWC", "takes": TensorProto.FLOAT16, "ending": ("Softmax",)},
        {"batch": 1},
        {"ending": ("Softmax",)},
        {"ending": ("LogSoftmax",)},
        {"ending": ("Softmax", "Identity")},
        {"takes": TensorProto.FLOAT16, "ending": ("Softmax", "Cast")},
        {"classes": 1, "ending": ("Sigmoid",)},
        {"takes": TensorProto.FLOAT16, "classes": 1, "ending": ("Sigmoid", "Cast")},
        {"names": ("pixels", "logits")},
        {"names": ("logits", "pixels"), "ending": ("Softmax",)},
    ],
    ids=str,
)
def test_the_engine_answers_as_the_file_did(own: dict[str, Any], tmp_path: Path) -> None:
    model = classifier(**own)
    labels = ("no", "yes") if own.get("classes") == 1 else ("a", "b", "c")
    pixels = np.random.default_rng(1).integers(0, 256, (11, HEIGHT, WIDTH, 3), np.uint8)
    expected = probabilities_by_hand(model, own.get("layout", "NCHW"), own.get("takes", TensorProto.FLOAT), pixels)

    manifest = built_manifest(model, tmp_path, labels=labels)

    half = own.get("takes") == TensorProto.FLOAT16
    assert manifest.preprocess.size_px == (HEIGHT, WIDTH)
    assert manifest.precision == ("fp16" if half else "fp32")
    engine = opened_engine(tmp_path / "engine", threads=1, precision="f32")
    with closing(engine):
        found = to_predictions(engine.infer(pixels).logits).probabilities
    assert len(set(expected.argmax(axis=1))) > 1
    np.testing.assert_allclose(found, expected, atol=0.01 if half else 1e-5)


def test_a_network_that_takes_any_size_is_given_the_recipes(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("GlobalAveragePool", ["x"], ["mean"]), helper.make_node("Flatten", ["mean"], ["y"])],
        "any size",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)

    manifest = built_manifest(model, tmp_path, size_px=(20, 24), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

    pixels = np.random.default_rng(1).integers(0, 256, (2, 20, 24, 3), np.uint8)
    with closing(opened_engine(tmp_path / "engine", threads=1)) as engine:
        np.testing.assert_allclose(engine.infer(pixels).logits, pixels.mean(axis=(1, 2)) / 255, atol=0.01)
    assert manifest.preprocess.size_px == (20, 24)


def changed_classifier(change: Callable[[onnx.ModelProto], object], **own: Any) -> onnx.ModelProto:
    model = classifier(**own)
    change(model)
    return model


def more_inputs(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("age", TensorProto.FLOAT, ["batch"]))


def more_outputs(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("flat", TensorProto.FLOAT, ["batch", 210]))


def no_classes(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.zeros((210, 3), np.float32), "unused"))
    model.graph.node.insert(0, helper.make_node("Reshape", ["image", "s"], ["w"]))
    model.graph.initializer.append(numpy_helper.from_array(np.array([210, -1]), "s"))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "classes"


def external(model: onnx.ModelProto) -> None:
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], "weights.bin")
    model.graph.initializer[0].ClearField("raw_data")


def nothing_done(model: onnx.ModelProto) -> None:
    del model.graph.node[:]
    model.graph.output[0].CopyFrom(model.graph.input[0])


def unknown_operator(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Stain", ["scores"], ["stained"], domain="lab"))
    model.graph.output[0].name = "stained"
    model.opset_import.append(helper.make_opsetid("lab", 1))


def three_everywhere(model: onnx.ModelProto) -> None:
    for dimension, side in zip(model.graph.input[0].type.tensor_type.shape.dim[1:], (3, 70, 3), strict=True):
        dimension.dim_value = side


def flat_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 210]))


@pytest.mark.parametrize(
    ("model", "values", "error", "message"),
    [
        (changed_classifier(more_inputs), {}, CheckpointError, "has 2 inputs and 1 outputs; a classifier has one each"),
        (
            changed_classifier(more_outputs),
            {},
            CheckpointError,
            "has 1 inputs and 2 outputs; a classifier has one each",
        ),
        (
            changed_classifier(three_everywhere),
            {},
            CheckpointError,
            r"one axis of 3 channels .* set layout = \"NCHW\" or \"NHWC\"",
        ),
        (
            changed_classifier(flat_input),
            {},
            CheckpointError,
            r"takes FLOAT of shape \(None, 210\); it must be .* rank 4",
        ),
        (changed_classifier(no_classes), {}, CheckpointError, "no fixed number of classes"),
        (changed_classifier(external), {}, CheckpointError, "cannot be read as ONNX: .*weights.bin"),
        (changed_classifier(nothing_done), {}, CheckpointError, "own.onnx"),
        (changed_classifier(unknown_operator), {}, BatchclsError, "own.onnx.*Stain"),
        (classifier(), {"layout": "NHWC"}, CheckpointError, "layout 'NHWC'"),
        (classifier(), {"size_px": (32, 32)}, RecipeError, r"takes \(10, 7\) pixels, the recipe says \(32, 32\)"),
        (classifier(), {"precision": "fp16"}, RecipeError, "computes in fp32, which cannot be made fp16"),
        (classifier(), {"labels": ("a", "b")}, RecipeError, "has 3 classes, 2 labels were named"),
    ],
)
def test_what_cannot_be_an_engine_is_refused(
    model: onnx.ModelProto, values: dict[str, Any], error: type[BatchclsError], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message) as refusal:
        built_manifest(model, tmp_path, **values)

    assert "\n" not in str(refusal.value)
    assert [path.name for path in tmp_path.iterdir()] == ["own.onnx"]


@settings(max_examples=200)
@given(start=st.integers(0, 500), noise=st.binary(min_size=1, max_size=12), rest=st.integers(0, 5000))
def test_a_damaged_file_is_read_or_refused_but_never_a_crash(start: int, noise: bytes, rest: int) -> None:
    whole = classifier(ending=("Softmax",)).SerializeToString()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "own.onnx"
        path.write_bytes(whole[:start] + noise + whole[start + len(noise) :][:rest])
        with suppress(CheckpointError):
            assert load_classifier(path).layout == "NCHW"


@pytest.mark.parametrize("content", [b"", b"weights", bytes(1000), b"\x08\x0a"])
def test_what_is_no_onnx_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "own.onnx").write_bytes(content)

    with pytest.raises(CheckpointError, match=r"own.onnx' cannot be read as ONNX: .+") as refusal:
        load_classifier(tmp_path / "own.onnx")
    assert "\n" not in str(refusal.value)
