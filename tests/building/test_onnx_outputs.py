"""Whatever an ONNX file ends in, the engine's probabilities are the file's own, or it is refused in one line."""

from collections.abc import Callable
from contextlib import closing
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console

from batchcls.building.build import build_engine
from batchcls.engine.backends import open_engine
from batchcls.engine.check import check
from batchcls.engine.manifest import Manifest
from batchcls.engine.postprocess import predictions
from batchcls.errors import CheckpointError, RecipeError
from batchcls.machine import has_bfloat16

HEIGHT, WIDTH = 12, 9
MEAN, STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
LABELS = ("a", "b", "c", "d")

Floats = npt.NDArray[np.float32]


class Net:
    """A small ONNX network, written one operator after the other."""

    def __init__(self, batch: int | str = "n", classes: int = 4, opset: int = 18, kind: type = np.float32) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.batch, self.opset, self.kind = batch, opset, kind
        self.scores = self.branch("image", 0, classes)

    def branch(self, image: str, seed: int, classes: int) -> str:
        weights = np.random.default_rng(seed).normal(0, 0.15, (3 * HEIGHT * WIDTH, classes))
        flat = self("Flatten", image)
        return self("MatMul", flat, (weights - weights.mean(axis=0)).astype(self.kind))

    def __call__(self, operator: str, *inputs: str | Any, outputs: int = 1, **attributes: Any) -> str:
        names = []
        for value in inputs:
            if isinstance(value, str):
                names.append(value)
                continue
            name = f"c{len(self.constants)}"
            self.constants.append(numpy_helper.from_array(np.asarray(value), name))
            names.append(name)
        results = [f"v{len(self.nodes)}"] + [f"v{len(self.nodes)}_{number}" for number in range(1, outputs)]
        self.nodes.append(helper.make_node(operator, names, results, **attributes))
        return results[-1]

    def f(self, value: Any) -> npt.NDArray[Any]:
        return np.asarray(value, self.kind)

    def model(self, *outputs: str, kind: int | None = None, layout: tuple[int, ...] | None = None) -> onnx.ModelProto:
        element = helper.np_dtype_to_tensor_dtype(np.dtype(self.kind))
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("image", element, [self.batch, *(layout or (3, HEIGHT, WIDTH))])],
            [helper.make_tensor_value_info(name, kind or element, None) for name in outputs],
            self.constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
        return onnx.shape_inference.infer_shapes(model)


def softmax(net: Net, scores: str, axis: int = 1) -> str:
    return net("Softmax", scores, axis=axis)


def in_parts(net: Net, stable: bool) -> str:
    scores = net("Sub", net.scores, net("ReduceMax", net.scores, np.array([1]), keepdims=1)) if stable else net.scores
    exponentials = net("Exp", scores)
    return net("Div", exponentials, net("ReduceSum", exponentials, np.array([1]), keepdims=1))


def ensemble(net: Net) -> str:
    several = [net("Unsqueeze", softmax(net, net.branch("image", seed, 4)), np.array([0])) for seed in range(3)]
    return net("ReduceMean", net("Concat", *several, axis=0), np.array([0]), keepdims=0)


def summed_ensemble(net: Net) -> str:
    several = [softmax(net, net.branch("image", seed, 4)) for seed in range(3)]
    return net("Sum", *several)


def turned_copies(net: Net) -> str:
    turned = net("Slice", "image", np.array([-1]), np.array([-1000]), np.array([3]), np.array([-1]))
    both = softmax(net, net.scores), softmax(net, net.branch(turned, 0, 4))
    return net("Mul", net("Add", *both), net.f(0.5))


def turned_copies_in_one_batch(net: Net) -> str:
    turned = net("Slice", "image", np.array([-1]), np.array([-1000]), np.array([3]), np.array([-1]))
    each = softmax(net, net.branch(net("Concat", "image", turned, axis=0), 0, 4))
    return net("ReduceMean", net("Reshape", each, np.array([2, -1, 4])), np.array([0]), keepdims=0)


def spatial(net: Net, axes: tuple[int, ...], axis: int) -> str:
    return softmax(net, net("Unsqueeze", net.scores, np.array(axes)), axis)


def one_sigmoid(net: Net) -> str:
    return net("Sigmoid", net("Gather", net.scores, np.array([0]), axis=1))


def two_of_a_sigmoid(net: Net) -> str:
    probability = one_sigmoid(net)
    return net("Concat", net("Sub", net.f(1), probability), probability, axis=1)


def rounded(net: Net, digits: int) -> str:
    return net("Div", net("Round", net("Mul", softmax(net, net.scores), net.f(10**digits))), net.f(10**digits))


def probability_of(kind: str, raw: Floats) -> Floats:
    """What an answer of the file itself means."""
    if kind == "logits":
        return predictions(raw).probabilities
    if kind == "one logit":
        return predictions(np.concatenate([np.zeros_like(raw), raw], axis=1)).probabilities
    if kind == "one probability":
        return np.concatenate([1 - raw, raw], axis=1)
    return raw / raw.sum(axis=1, keepdims=True)


Ending = Callable[[Net], str]
ENDINGS: dict[str, tuple[Ending, str, float]] = {
    "logits": (lambda net: net.scores, "logits", 1e-5),
    "softmax": (lambda net: softmax(net, net.scores), "shares", 1e-5),
    "softmax over the last axis": (lambda net: softmax(net, net.scores, -1), "shares", 1e-5),
    "logarithm of softmax": (lambda net: net("Log", softmax(net, net.scores)), "logits", 1e-5),
    "logarithm of softmax, shifted": (
        lambda net: net("Add", net("Log", softmax(net, net.scores)), net.f(3)),
        "logits",
        1e-5,
    ),
    "logits far from 0": (lambda net: net("Add", net.scores, net.f(2e5)), "logits", 0.02),
    "one log(p / (1 - p))": (
        lambda net: net("Log", net("Div", one_sigmoid(net), net("Sub", net.f(1), one_sigmoid(net)))),
        "one logit",
        1e-5,
    ),
    "log softmax": (lambda net: net("LogSoftmax", net.scores, axis=1), "logits", 1e-5),
    "softmax in parts": (lambda net: in_parts(net, stable=False), "shares", 1e-5),
    "stable softmax in parts": (lambda net: in_parts(net, stable=True), "shares", 1e-5),
    "logarithm and exponential": (lambda net: net("Exp", net("LogSoftmax", net.scores, axis=1)), "shares", 1e-5),
    "softmax of a temperature": (lambda net: softmax(net, net("Div", net.scores, net.f(2.5))), "shares", 1e-5),
    "softmax twice": (lambda net: softmax(net, softmax(net, net.scores)), "shares", 1e-5),
    "percent": (lambda net: net("Mul", softmax(net, net.scores), net.f(100)), "shares", 1e-5),
    "of 255": (lambda net: net("Mul", softmax(net, net.scores), net.f(255)), "shares", 1e-5),
    "clipped": (lambda net: net("Clip", softmax(net, net.scores), net.f(1e-7), net.f(1 - 1e-7)), "shares", 1e-5),
    "rounded to three digits": (lambda net: rounded(net, 3), "shares", 1e-5),
    "rounded to two digits": (lambda net: rounded(net, 2), "shares", 1e-5),
    "reshaped": (lambda net: net("Reshape", softmax(net, net.scores), np.array([-1, 4])), "shares", 1e-5),
    "turned over and back": (
        lambda net: net("Transpose", softmax(net, net("Transpose", net.scores, perm=[1, 0]), 0), perm=[1, 0]),
        "shares",
        1e-5,
    ),
    "identity": (lambda net: net("Identity", softmax(net, net.scores)), "shares", 1e-5),
    "ensemble": (ensemble, "shares", 1e-5),
    "sum of an ensemble": (summed_ensemble, "shares", 1e-5),
    "turned copies": (turned_copies, "shares", 1e-5),
    "turned copies in one batch": (turned_copies_in_one_batch, "shares", 1e-5),
    "(N, C, 1, 1)": (lambda net: spatial(net, (2, 3), 1), "shares", 1e-5),
    "(N, 1, 1, C)": (lambda net: spatial(net, (1, 2), 3), "shares", 1e-5),
    "(N, C, 1, 1) logits": (lambda net: net("Unsqueeze", net.scores, np.array([2, 3])), "logits", 1e-5),
    "(N, 1, C) logits": (lambda net: net("Unsqueeze", net.scores, np.array([1])), "logits", 1e-5),
    "one logit": (lambda net: net("Gather", net.scores, np.array([0]), axis=1), "one logit", 1e-5),
    "one logit, (N,)": (lambda net: net("Gather", net.scores, np.array(0), axis=1), "one logit", 1e-5),
    "one sigmoid": (one_sigmoid, "one probability", 1e-5),
    "one sigmoid, (N,)": (lambda net: net("Squeeze", one_sigmoid(net), np.array([1])), "one probability", 1e-5),
    "one sigmoid in parts": (
        lambda net: net(
            "Div", net.f(1), net("Add", net.f(1), net("Exp", net("Gather", net.scores, np.array([1]), axis=1)))
        ),
        "one probability",
        1e-5,
    ),
    "two of a sigmoid": (two_of_a_sigmoid, "shares", 1e-5),
    "cast to half": (lambda net: net("Cast", softmax(net, net.scores), to=TensorProto.FLOAT16), "shares", 2e-3),
    "cast to double": (lambda net: net("Cast", softmax(net, net.scores), to=TensorProto.DOUBLE), "shares", 1e-5),
}


def own(model: onnx.ModelProto, pixels: npt.NDArray[np.uint8], kind: str) -> Floats:
    """The probabilities by ONNX Runtime, of the file as it is."""
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0]
    kinds = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}
    images = pixels if given.type == "tensor(uint8)" else (pixels / np.float32(255) - MEAN) / STD
    ordered = images if given.shape[-1] == 3 else images.transpose(0, 3, 1, 2)
    fed = ordered.astype(kinds[given.type])
    raw = [session.run(None, {given.name: image[None]})[0].astype(np.float32).reshape(1, -1) for image in fed]
    return probability_of(kind, np.concatenate(raw))


def drawn_pixels() -> npt.NDArray[np.uint8]:
    random = np.random.default_rng(1)
    noise = random.integers(0, 256, (9, HEIGHT, WIDTH, 3), np.uint8)
    flat = np.broadcast_to(random.integers(0, 256, (4, 1, 1, 3), np.uint8), (4, HEIGHT, WIDTH, 3))
    return np.concatenate([noise, flat])


def built(model: onnx.ModelProto, folder: Path, labels: tuple[str, ...] = LABELS, **values: Any) -> str:
    """Build an engine, and return what was said meanwhile."""
    onnx.save(model, folder / "own.onnx")
    said = StringIO()
    build_engine(
        folder / "own.onnx",
        folder / "engine",
        recipe=None,
        values={"labels": labels, **values},
        images=None,
        console=Console(file=said, soft_wrap=True),
    )
    return said.getvalue()


def answered(folder: Path, pixels: npt.NDArray[np.uint8]) -> Floats:
    engine = open_engine(folder / "engine", backend="openvino", device="cpu", threads=1, precision="f32")
    with closing(engine):
        return predictions(engine.infer(pixels)).probabilities


@pytest.mark.parametrize("name", ENDINGS)
def test_the_probabilities_are_the_files_own(name: str, tmp_path: Path) -> None:
    ending, kind, tolerance = ENDINGS[name]
    net = Net()
    model = net.model(
        ending(net), kind={"cast to half": TensorProto.FLOAT16, "cast to double": TensorProto.DOUBLE}.get(name)
    )
    expected = own(model, drawn_pixels(), kind)

    built(model, tmp_path, LABELS[: expected.shape[1]])

    assert len(set(expected.argmax(axis=1))) > 1
    np.testing.assert_allclose(answered(tmp_path, drawn_pixels()), expected, atol=tolerance)


@pytest.mark.parametrize("opset", [9, 11, 12, 13, 17, 21, 23])
@pytest.mark.parametrize("batch", ["n", 1])
@pytest.mark.parametrize("ending", ["softmax", "percent", "logits", "one sigmoid"])
def test_the_version_of_the_operators_and_the_batch_do_not_matter(
    opset: int, batch: str | int, ending: str, tmp_path: Path
) -> None:
    make, kind, _ = ENDINGS[ending]
    net = Net(batch=batch, opset=opset)
    model = net.model(make(net))
    expected = own(model, drawn_pixels(), kind)

    built(model, tmp_path, LABELS[: expected.shape[1]])

    np.testing.assert_allclose(answered(tmp_path, drawn_pixels()), expected, atol=1e-5)


@pytest.mark.parametrize("ending", ["softmax", "percent", "stable softmax in parts", "logits", "one sigmoid"])
def test_half_precision_is_judged_alike(ending: str, tmp_path: Path) -> None:
    make, kind, _ = ENDINGS[ending]
    net = Net(kind=np.float16)
    model = net.model(make(net))
    expected = own(model, drawn_pixels(), kind)

    built(model, tmp_path, LABELS[: expected.shape[1]])

    np.testing.assert_allclose(answered(tmp_path, drawn_pixels()), expected, atol=0.01)


@pytest.mark.parametrize("batch", ["n", 1])
def test_a_network_of_bytes_in_any_layout_is_judged_alike(batch: str | int, tmp_path: Path) -> None:
    net = Net(batch=batch)
    net.nodes, net.constants = [], []
    scaled = net("Mul", net("Cast", "image", to=TensorProto.FLOAT), net.f(4 / 255))
    scores = net.branch(scaled, 0, 4)
    model = net.model(net("Mul", softmax(net, scores), net.f(100)), layout=(HEIGHT, WIDTH, 3))
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    expected = own(model, drawn_pixels(), "shares")

    built(model, tmp_path)

    np.testing.assert_allclose(answered(tmp_path, drawn_pixels()), expected, atol=1e-5)
    with pytest.raises(RecipeError, match="takes bytes, and normalises them itself; leave mean and std out"):
        built(model, tmp_path, mean=(0.5, 0.5, 0.5))


@pytest.mark.parametrize("closing_operator", ["Squeeze", "Gather"])
def test_a_file_that_answers_one_image_without_a_batch_axis(closing_operator: str, tmp_path: Path) -> None:
    net = Net(batch=1)
    shares = softmax(net, net.scores)
    out = net("Squeeze", shares, np.array([0])) if closing_operator == "Squeeze" else None
    model = net.model(out or net("Gather", shares, np.array(0), axis=0))
    expected = own(model, drawn_pixels(), "shares")

    if closing_operator == "Gather":
        with pytest.raises(CheckpointError, match="export it with a free batch axis"):
            built(model, tmp_path)
    else:
        built(model, tmp_path)
        np.testing.assert_allclose(answered(tmp_path, drawn_pixels()), expected, atol=1e-5)


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
    "a mean over the batch": (mixed_up, TensorProto.FLOAT, "export it with a free batch axis"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_told_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    make, kind, message = REFUSED[name]
    net = Net()
    model = net.model(make(net), kind=kind)

    with pytest.raises(CheckpointError, match=message) as refusal:
        built(model, tmp_path)

    assert "\n" not in str(refusal.value)
    assert "own.onnx" in str(refusal.value)
    assert not (tmp_path / "engine").exists()


def test_one_channel_is_refused_and_the_way_out_named(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("GlobalMaxPool", ["x"], ["pooled"]), helper.make_node("Flatten", ["pooled"], ["y"])],
        "grey",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, HEIGHT, WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)

    for layout in ("auto", "NCHW"):
        with pytest.raises(CheckpointError, match=r"one channel of grey, .* export it with three"):
            built(model, tmp_path, layout=layout)


def test_a_recipe_may_say_what_the_outputs_are(tmp_path: Path) -> None:
    net = Net()
    model = net.model(net("Clip", softmax(net, net.scores), net.f(0.15), net.f(0.6)))
    expected = own(model, drawn_pixels(), "shares")

    said = built(model, tmp_path, output="probabilities")

    assert "made to sum to 1, which changes one by up to 0." in said
    np.testing.assert_allclose(answered(tmp_path, drawn_pixels()), expected, atol=1e-5)


def test_logits_that_happen_to_look_like_probabilities_are_logits_where_a_recipe_says_so(tmp_path: Path) -> None:
    net = Net()
    model = net.model(softmax(net, net.scores))
    expected = own(model, drawn_pixels(), "logits")

    built(model, tmp_path, output="logits")

    np.testing.assert_allclose(answered(tmp_path, drawn_pixels()), expected, atol=1e-5)


def test_small_logits_of_an_untrained_network_are_logits(tmp_path: Path) -> None:
    net = Net()
    model = net.model(net("Add", net("Mul", net.scores, net.f(0.002)), net.f([0.3, 0.2, 0.4, 0.2])))
    expected = own(model, drawn_pixels(), "logits")

    built(model, tmp_path)

    np.testing.assert_allclose(answered(tmp_path, drawn_pixels()), expected, atol=1e-5)


@pytest.mark.parametrize("ending", ["percent", "softmax", "one sigmoid", "one logit"])
def test_a_temperature_divides_the_logarithms_of_the_files_own_probabilities(ending: str, tmp_path: Path) -> None:
    make, kind, _ = ENDINGS[ending]
    net = Net()
    model = net.model(make(net))
    plain = np.log(np.maximum(own(model, drawn_pixels(), kind), 1e-30))

    built(model, tmp_path, LABELS[: plain.shape[1]], temperature=3.0)

    np.testing.assert_allclose(answered(tmp_path, drawn_pixels()), predictions(plain / 3).probabilities, atol=1e-4)


BEFORE_NORMALISING: dict[str, Ending] = {
    "nothing": lambda _: "image",
    "a clip": lambda net: net("Clip", "image", net.f(0), net.f(255)),
    "another order": lambda net: net("Transpose", net("Transpose", "image", perm=[0, 2, 3, 1]), perm=[0, 3, 1, 2]),
    "a resize": lambda net: net("Resize", "image", "", net.f([1, 1, 1, 1])),
}


@pytest.mark.parametrize("first", BEFORE_NORMALISING)
def test_a_network_that_normalises_inside_is_warned_of_and_the_recipes_keys_named(first: str, tmp_path: Path) -> None:
    net = Net()
    net.nodes, net.constants = [], []
    inside = net("Sub", net("Mul", BEFORE_NORMALISING[first](net), net.f(1 / 127.5)), net.f(1))
    model = net.model(softmax(net, net.branch(inside, 0, 4)))

    said = built(model, tmp_path)
    silent = built(model, tmp_path, mean=(0.0, 0.0, 0.0), std=(1 / 255, 1 / 255, 1 / 255))

    assert "the file itself begins with Mul, Sub by constants" in said
    assert "set in the recipe: mean = [0, 0, 0], std = [0.003921569, 0.003921569, 0.003921569]" in said
    assert "warning" not in silent


def test_a_network_that_hardly_sees_normalised_images_is_warned_of(tmp_path: Path) -> None:
    net = Net()
    model = net.model(softmax(net, net("Mul", net.scores, net.f(0.01))))

    said = built(model, tmp_path)

    assert "its answers hardly change between drawn images" in said
    assert "if it is fed pixels of 0 to 255" in said


def test_a_network_that_sees_its_images_is_not_warned_of(tmp_path: Path) -> None:
    net = Net()
    assert "warning" not in built(net.model(softmax(net, net.scores)), tmp_path)


def test_a_network_that_bfloat16_costs_too_much_is_built_to_run_in_float32(tmp_path: Path) -> None:
    net = Net()
    said = built(net.model(net.scores), tmp_path, temperature=0.01)

    with closing(open_engine(tmp_path / "engine", backend="openvino", device="cpu", threads=1)) as engine:
        check(engine, Manifest.read(tmp_path / "engine"))
    assert Manifest.read(tmp_path / "engine").exact == ("a run will compute in float32" in said) == has_bfloat16()
