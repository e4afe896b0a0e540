"""Whatever an ONNX file ends in, the engine's probabilities are the file's own, or it is refused in one line."""

from contextlib import closing
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto
from rich.console import Console

from batchcls.building.build import BuildOptions, build_engine
from batchcls.engine.check import check_answers
from batchcls.engine.manifest import Manifest
from batchcls.engine.postprocess import to_predictions
from batchcls.errors import CheckpointError, RecipeError
from batchcls.machine import has_bfloat16
from tests.building.onnx_networks import (
    ENDINGS,
    HEIGHT,
    LABELS,
    WIDTH,
    Ending,
    Floats,
    Net,
    drawn_pixels,
    file_probabilities,
    one_sigmoid,
    softmax,
)
from tests.engines import opened_engine


def build_output(model: onnx.ModelProto, folder: Path, labels: tuple[str, ...] = LABELS, **values: Any) -> str:
    """Build an engine, and return what the console shows meanwhile."""
    onnx.save(model, folder / "own.onnx")
    shown = StringIO()
    build_engine(
        folder / "own.onnx",
        folder / "engine",
        BuildOptions(values={"labels": labels, **values}, overwrite=True),
        Console(file=shown, soft_wrap=True),
    )
    return shown.getvalue()


def engine_probabilities(folder: Path, pixels: npt.NDArray[np.uint8]) -> Floats:
    """(N, classes) probabilities by the engine of a test."""
    engine = opened_engine(folder / "engine", threads=1, precision="f32")
    with closing(engine):
        return to_predictions(engine.infer(pixels).logits).probabilities


@pytest.mark.parametrize("name", ENDINGS)
def test_the_probabilities_are_the_files_own(name: str, tmp_path: Path) -> None:
    ending, kind, tolerance = ENDINGS[name]
    net = Net()
    model = net.model(
        ending(net), kind={"cast to half": TensorProto.FLOAT16, "cast to double": TensorProto.DOUBLE}.get(name)
    )
    expected = file_probabilities(model, drawn_pixels(), kind)

    build_output(model, tmp_path, LABELS[: expected.shape[1]])

    assert len(set(expected.argmax(axis=1))) > 1
    np.testing.assert_allclose(engine_probabilities(tmp_path, drawn_pixels()), expected, atol=tolerance)


@pytest.mark.parametrize("opset", [9, 11, 12, 13, 17, 21, 23])
@pytest.mark.parametrize("batch", ["n", 1])
@pytest.mark.parametrize("ending", ["softmax", "percent", "logits", "one sigmoid"])
def test_the_version_of_the_operators_and_the_batch_do_not_matter(
    opset: int, batch: str | int, ending: str, tmp_path: Path
) -> None:
    make, kind, _ = ENDINGS[ending]
    net = Net(batch=batch, opset=opset)
    model = net.model(make(net))
    expected = file_probabilities(model, drawn_pixels(), kind)

    build_output(model, tmp_path, LABELS[: expected.shape[1]])

    np.testing.assert_allclose(engine_probabilities(tmp_path, drawn_pixels()), expected, atol=1e-5)


@pytest.mark.parametrize("ending", ["softmax", "percent", "stable softmax in parts", "logits", "one sigmoid"])
def test_half_precision_is_judged_alike(ending: str, tmp_path: Path) -> None:
    make, kind, _ = ENDINGS[ending]
    net = Net(kind=np.float16)
    model = net.model(make(net))
    expected = file_probabilities(model, drawn_pixels(), kind)

    build_output(model, tmp_path, LABELS[: expected.shape[1]])

    np.testing.assert_allclose(engine_probabilities(tmp_path, drawn_pixels()), expected, atol=0.01)


@pytest.mark.parametrize("batch", ["n", 1])
def test_a_network_of_bytes_in_any_layout_is_judged_alike(batch: str | int, tmp_path: Path) -> None:
    net = Net(batch=batch)
    net.nodes, net.constants = [], []
    scaled = net("Mul", net("Cast", "image", to=TensorProto.FLOAT), net.f(4 / 255))
    scores = net.branch(scaled, 0, 4)
    model = net.model(net("Mul", softmax(net, scores), net.f(100)), layout=(HEIGHT, WIDTH, 3))
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    expected = file_probabilities(model, drawn_pixels(), "shares")

    build_output(model, tmp_path)

    np.testing.assert_allclose(engine_probabilities(tmp_path, drawn_pixels()), expected, atol=1e-5)
    with pytest.raises(RecipeError, match="takes bytes, and normalizes them itself; leave mean and std out"):
        build_output(model, tmp_path, mean=(0.5, 0.5, 0.5))


@pytest.mark.parametrize("closing_operator", ["Squeeze", "Gather"])
def test_a_file_that_answers_one_image_without_a_batch_axis(closing_operator: str, tmp_path: Path) -> None:
    net = Net(batch=1)
    shares = softmax(net, net.scores)
    out = net("Squeeze", shares, np.array([0])) if closing_operator == "Squeeze" else None
    model = net.model(out or net("Gather", shares, np.array(0), axis=0))
    expected = file_probabilities(model, drawn_pixels(), "shares")

    if closing_operator == "Gather":
        with pytest.raises(CheckpointError, match=r"exported for batches of 1.* dynamic_shapes="):
            build_output(model, tmp_path)
    else:
        build_output(model, tmp_path)
        np.testing.assert_allclose(engine_probabilities(tmp_path, drawn_pixels()), expected, atol=1e-5)


def mixed_up(net: Net) -> str:
    """The mean over a batch of images, which is right for one image alone."""
    return net("ReduceMean", softmax(net, net.scores), np.array([0]), keepdims=1)


REFUSED: dict[str, tuple[Ending, int, str]] = {
    "argmax": (lambda net: net("ArgMax", net.scores, axis=1), TensorProto.INT64, "answers INT64, .* ArgMax"),
    "argmax as a number": (
        lambda net: net("Cast", net("ArgMax", net.scores, axis=1), to=TensorProto.FLOAT),
        TensorProto.FLOAT,
        "one whole number, .* ArgMax",
    ),
    "the best three": (
        lambda net: net("TopK", net.scores, np.array([3]), outputs=2, axis=1),
        TensorProto.INT64,
        "answers INT64",
    ),
    "sorted shares": (
        lambda net: net("Identity", net("TopK", softmax(net, net.scores), np.array([4]), outputs=2)[:-2]),
        TensorProto.FLOAT,
        "ends in a TopK",
    ),
    "several sigmoids": (
        lambda net: net("Sigmoid", net.scores),
        TensorProto.FLOAT,
        r"a Sigmoid over 4 outputs, so an image may have several labels at once",
    ),
    "sigmoids of a bias": (
        lambda net: net("Mul", net("Sigmoid", net.scores), net.f(1)),
        TensorProto.FLOAT,
        "several labels at once",
    ),
    "clipped hard": (
        lambda net: net("Clip", softmax(net, net.scores), net.f(0.15), net.f(0.6)),
        TensorProto.FLOAT,
        'lie within 0 and 1 and sum to .* say which in a recipe: output = "probabilities"',
    ),
    "softmax over the wrong axis": (
        lambda net: softmax(net, net.scores, 0),
        TensorProto.FLOAT,
        r"answers every image with the same \(1, 1, 1, 1\)",
    ),
    "a map": (lambda net: net("Identity", "image"), TensorProto.FLOAT, r"values of shape \(1, 3, 12, 9\)"),
    "not a number": (
        lambda net: net("Log", net("Sub", net("Sigmoid", net.scores), net.f(2))),
        TensorProto.FLOAT,
        "are not numbers",
    ),
    "one tanh": (
        lambda net: net("Tanh", net("Gather", net.scores, np.array([0]), axis=1)),
        TensorProto.FLOAT,
        "answers, within .*, are no probabilities",
    ),
    "one percentage": (
        lambda net: net("Mul", one_sigmoid(net), net.f(100)),
        TensorProto.FLOAT,
        "answers, within .*, are no probabilities",
    ),
    "shares from -1 to 1": (
        lambda net: net("Sub", net("Mul", softmax(net, net.scores), net.f(2)), net.f(1)),
        TensorProto.FLOAT,
        "it ends in Softmax, but its answers, within -1 and 1, are no probabilities",
    ),
    "unfinished shares": (lambda net: net("Exp", net.scores), TensorProto.FLOAT, "it ends in Exp"),
    "a loss": (
        lambda net: net("Neg", net("LogSoftmax", net.scores, axis=1)),
        TensorProto.FLOAT,
        "negative logarithms of probabilities",
    ),
    "logarithms to the base of 10": (
        lambda net: net("Mul", net("Log", softmax(net, net.scores)), net.f(0.4342945)),
        TensorProto.FLOAT,
        "it ends in Softmax, but its answers, within .*, are no probabilities, nor their natural logarithms",
    ),
    "log softmax, doubled": (
        lambda net: net("Mul", net("LogSoftmax", net.scores, axis=1), net.f(2)),
        TensorProto.FLOAT,
        "it ends in LogSoftmax, but .* nor their natural logarithms",
    ),
    "logarithms of several sigmoids": (
        lambda net: net("Log", net("Sigmoid", net.scores)),
        TensorProto.FLOAT,
        "it ends in Sigmoid, but .* nor their natural logarithms",
    ),
    "the logarithm of one sigmoid": (
        lambda net: net("Log", one_sigmoid(net)),
        TensorProto.FLOAT,
        "it ends in Sigmoid, but .* nor their natural logarithms",
    ),
    "the largest share alone": (
        lambda net: net("ReduceMax", softmax(net, net.scores), np.array([1]), keepdims=1),
        TensorProto.FLOAT,
        "its largest probability alone, .* without its last ReduceMax",
    ),
    "a mean over the batch": (mixed_up, TensorProto.FLOAT, "or no batch axis: .* dynamic_shapes="),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_told_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    make, kind, message = REFUSED[name]
    net = Net()
    model = net.model(make(net), kind=kind)

    with pytest.raises(CheckpointError, match=message) as refusal:
        build_output(model, tmp_path)

    assert "\n" not in str(refusal.value)
    assert "own.onnx" in str(refusal.value)
    assert not (tmp_path / "engine").exists()


def test_a_recipe_may_say_what_the_outputs_are(tmp_path: Path) -> None:
    net = Net()
    model = net.model(net("Clip", softmax(net, net.scores), net.f(0.15), net.f(0.6)))
    expected = file_probabilities(model, drawn_pixels(), "shares")

    said = build_output(model, tmp_path, output="probabilities")

    assert "made to sum to 1, which changes one by up to 0." in said
    np.testing.assert_allclose(engine_probabilities(tmp_path, drawn_pixels()), expected, atol=1e-5)


def test_logits_that_happen_to_look_like_probabilities_are_logits_where_a_recipe_says_so(tmp_path: Path) -> None:
    net = Net()
    model = net.model(softmax(net, net.scores))
    expected = file_probabilities(model, drawn_pixels(), "logits")

    build_output(model, tmp_path, output="logits")

    np.testing.assert_allclose(engine_probabilities(tmp_path, drawn_pixels()), expected, atol=1e-5)


def test_small_logits_of_an_untrained_network_are_logits(tmp_path: Path) -> None:
    net = Net()
    model = net.model(net("Add", net("Mul", net.scores, net.f(0.002)), net.f([0.3, 0.2, 0.4, 0.2])))
    expected = file_probabilities(model, drawn_pixels(), "logits")

    build_output(model, tmp_path)

    np.testing.assert_allclose(engine_probabilities(tmp_path, drawn_pixels()), expected, atol=1e-5)


@pytest.mark.parametrize("ending", ["percent", "softmax", "one sigmoid", "one logit"])
def test_a_temperature_divides_the_logarithms_of_the_files_own_probabilities(ending: str, tmp_path: Path) -> None:
    make, kind, _ = ENDINGS[ending]
    net = Net()
    model = net.model(make(net))
    plain = np.log(np.maximum(file_probabilities(model, drawn_pixels(), kind), 1e-30))

    build_output(model, tmp_path, LABELS[: plain.shape[1]], temperature=3.0)

    np.testing.assert_allclose(
        engine_probabilities(tmp_path, drawn_pixels()), to_predictions(plain / 3).probabilities, atol=1e-4
    )


BEFORE_NORMALIZATION: dict[str, Ending] = {
    "nothing": lambda _: "image",
    "a clip": lambda net: net("Clip", "image", net.f(0), net.f(255)),
    "another order": lambda net: net("Transpose", net("Transpose", "image", perm=[0, 2, 3, 1]), perm=[0, 3, 1, 2]),
    "a resize": lambda net: net("Resize", "image", "", net.f([1, 1, 1, 1])),
}


@pytest.mark.parametrize("first", BEFORE_NORMALIZATION)
def test_a_network_that_normalizes_inside_is_warned_of_and_the_recipes_keys_named(first: str, tmp_path: Path) -> None:
    net = Net()
    net.nodes, net.constants = [], []
    inside = net("Sub", net("Mul", BEFORE_NORMALIZATION[first](net), net.f(1 / 127.5)), net.f(1))
    model = net.model(softmax(net, net.branch(inside, 0, 4)))

    said = build_output(model, tmp_path)
    silent = build_output(model, tmp_path, mean=(0.0, 0.0, 0.0), std=(1 / 255, 1 / 255, 1 / 255))

    assert "the file itself begins with Mul, Sub by constants" in said
    assert "set in the recipe: mean = [0, 0, 0], std = [0.003921569, 0.003921569, 0.003921569]" in said
    assert "warning" not in silent


def test_a_network_that_hardly_sees_normalized_images_is_warned_of(tmp_path: Path) -> None:
    net = Net()
    model = net.model(softmax(net, net("Mul", net.scores, net.f(0.01))))

    said = build_output(model, tmp_path)

    assert "answers hardly change between drawn images" in said
    assert "if it is fed pixels of 0 to 255" in said


def test_a_network_that_sees_its_images_is_not_warned_of(tmp_path: Path) -> None:
    net = Net()
    assert "warning" not in build_output(net.model(softmax(net, net.scores)), tmp_path)


def test_a_network_that_bfloat16_costs_too_much_is_built_to_run_in_float32(tmp_path: Path) -> None:
    net = Net()
    said = build_output(net.model(net.scores), tmp_path, temperature=0.01)

    with closing(opened_engine(tmp_path / "engine", threads=1)) as engine:
        check_answers(engine, Manifest.read(tmp_path / "engine"))
    assert Manifest.read(tmp_path / "engine").exact == ("a run will compute in float32" in said) == has_bfloat16()
