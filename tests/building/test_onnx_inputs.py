"""An ONNX classifier of any input, and of any batch size that it was exported for, keeps its answers as an engine."""

import re
from contextlib import closing
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from rich.console import Console

from batchcls.building.build import BuildOptions, build_engine
from batchcls.building.onnx.classifier import load_classifier, onnx_notes
from batchcls.building.onnx.graph_steps import GraphSteps
from batchcls.engine.postprocess import to_predictions
from batchcls.errors import CheckpointError
from batchcls.networks.preprocess import Preprocess
from tests.building.drawn_onnx import BYTES, FLOAT, HALF, Drawing, pixels_to_try
from tests.building.onnx_networks import Floats
from tests.engines import opened_engine


def engine_probabilities(model: onnx.ModelProto, drawing: Drawing, folder: Path) -> Floats:
    """Answers of the engine that ``model`` becomes, to all of `pixels_to_try` at once."""
    onnx.save(model, folder / "own.onnx")
    build_engine(folder / "own.onnx", folder / "engine", BuildOptions(values=drawing.recipe), Console(quiet=True))
    with closing(opened_engine(folder / "engine", threads=1, precision="f32")) as engine:
        return to_predictions(engine.infer(pixels_to_try()).logits).probabilities


@pytest.mark.parametrize(
    "drawing",
    [
        Drawing(7, FLOAT, FLOAT, "NCHW", 3, "logits", 1),
        Drawing(9, FLOAT, FLOAT, "NCHW", 1, "softmax", "n"),
        Drawing(11, BYTES, FLOAT, "NHWC", 1, "one logit", 8),
        Drawing(13, HALF, FLOAT, "NCHW", 3, "sigmoid", 1),
        Drawing(17, FLOAT, HALF, "NHWC", 3, "logits", "n"),
        Drawing(21, HALF, HALF, "NHWC", 1, "softmax", "n"),
        Drawing(23, BYTES, FLOAT, "NCHW", 3, "sigmoid", 1),
    ],
    ids=str,
)
def test_an_engine_answers_as_its_file_whatever_the_file_takes(drawing: Drawing, tmp_path: Path) -> None:
    model = drawing.model()
    expected = drawing.own_probabilities(model, pixels_to_try())

    answers = engine_probabilities(model, drawing, tmp_path)

    assert len(set(expected.argmax(axis=1))) > 1
    half = HALF in (drawing.takes, drawing.computes)
    np.testing.assert_allclose(answers, expected, atol=0.01 if half else 1e-5)


def windows(steps: GraphSteps, name: str, batch: int) -> str:
    """Cut into windows in the batch, as Swin does, and put together again; a token beside each row, as in a ViT."""
    name = steps.add("Reshape", name, np.array([batch, 8, 2, 2, 3]))
    name = steps.add("Reshape", steps.add("Transpose", name, perm=[0, 2, 1, 3, 4]), np.array([batch * 2, 8, 2, 3]))
    name = steps.add("Relu", name)
    name = steps.add("Reshape", name, np.array([batch, 2, 8, 2, 3]))
    name = steps.add("Reshape", steps.add("Transpose", name, perm=[0, 2, 1, 3, 4]), np.array([batch, 8, -1, 3]))
    token = np.random.default_rng(2).normal(0, 1, (1, 8, 1, 3)).astype(np.float32)
    return steps.add("Concat", np.repeat(token, batch, 0), name, axis=2)


def all_in_one_row(steps: GraphSteps, name: str, batch: int) -> str:
    """PyTorch's ``as_strided``, which its exporter makes of some means."""
    places = np.arange(batch * 96).reshape(batch, 8, 4, 3)
    return steps.add("Gather", steps.add("Reshape", name, np.array([-1])), places, axis=0)


def batch_in_the_middle(steps: GraphSteps, name: str, batch: int) -> str:
    """Heads of attention beside the images of a batch, as torchvision's ViT has them."""
    name = steps.add("Reshape", steps.add("Transpose", name, perm=[1, 0, 2, 3]), np.array([8, batch * 4, 3]))
    return steps.add("Transpose", steps.add("Reshape", name, np.array([8, batch, 4, 3])), perm=[1, 0, 2, 3])


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("middle", [windows, all_in_one_row])
def test_a_batch_size_that_constants_hold_is_made_free(middle: object, batch: int, tmp_path: Path) -> None:
    drawing = Drawing(batch=batch)
    model = drawing.model(lambda steps, name: middle(steps, name, batch))  # type: ignore[operator]
    expected = drawing.own_probabilities(model, pixels_to_try())

    answers = engine_probabilities(model, drawing, tmp_path)

    np.testing.assert_allclose(answers, expected, atol=1e-5)
    (note,) = onnx_notes(load_classifier(tmp_path / "own.onnx"), Preprocess((14, 11)))
    assert re.search(r"exported for batches of one size, which [1-9]\d* of its operators held", note)


@pytest.mark.parametrize(("layout", "advice"), [("NCHW", "torch.zeros(2, 1, 14, 11)"), ("NHWC", "(None, 14, 11, 1)")])
def test_a_batch_size_that_cannot_be_freed_is_refused_with_the_export_call(
    layout: str, advice: str, tmp_path: Path
) -> None:
    drawing = Drawing(batch=8, layout=layout, channels=1)
    onnx.save(drawing.model(lambda steps, name: batch_in_the_middle(steps, name, 8)), tmp_path / "own.onnx")

    with pytest.raises(CheckpointError, match=r"was exported for batches of 8, which is held by Reshape '") as refusal:
        load_classifier(tmp_path / "own.onnx")

    assert advice in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_images_that_meet_in_a_batch_are_refused(tmp_path: Path) -> None:
    def mean_of_batch(steps: GraphSteps, name: str) -> str:
        return steps.add("Sub", name, steps.add("ReduceMean", name, np.array([0])))

    onnx.save(Drawing(batch=8).model(mean_of_batch), tmp_path / "own.onnx")
    with pytest.raises(CheckpointError, match="answers"):
        load_classifier(tmp_path / "own.onnx")


def test_weights_in_a_file_beside_it_are_read_with_the_network(tmp_path: Path) -> None:
    drawing = Drawing()
    model = drawing.model()
    expected = drawing.own_probabilities(model, pixels_to_try())
    (tmp_path / "export").mkdir()
    onnx.save(
        model, tmp_path / "export" / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0
    )
    assert (tmp_path / "export" / "net.data").stat().st_size > 0

    build_engine(
        tmp_path / "export" / "net.onnx", tmp_path / "engine", BuildOptions(values=drawing.recipe), Console(quiet=True)
    )
    (tmp_path / "export" / "net.data").unlink()

    with closing(opened_engine(tmp_path / "engine", threads=1, precision="f32")) as engine:
        answers = to_predictions(engine.infer(pixels_to_try()).logits).probabilities
    np.testing.assert_allclose(answers, expected, atol=1e-5)


def test_operators_newer_than_the_runtime_are_refused_in_one_line(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["image"], ["answer"])],
        "newer",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["n", 192])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 99)], ir_version=8)
    onnx.save(model, tmp_path / "own.onnx")

    with pytest.raises(CheckpointError, match=r"operator set 99.*opset_version=") as refusal:
        load_classifier(tmp_path / "own.onnx")
    assert "\n" not in str(refusal.value)
