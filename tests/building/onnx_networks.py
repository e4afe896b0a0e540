"""Small ONNX networks with every kind of ending that a classifier may have."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from batchcls.engine.postprocess import to_predictions

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
    """Probabilities, (N, classes), that the answers of an ONNX file stand for."""
    if kind == "logits":
        return to_predictions(raw).probabilities
    if kind == "one logit":
        return to_predictions(np.concatenate([np.zeros_like(raw), raw], axis=1)).probabilities
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


def file_probabilities(model: onnx.ModelProto, pixels: npt.NDArray[np.uint8], kind: str) -> Floats:
    """(N, classes) probabilities of an unedited ONNX file, by ONNX Runtime."""
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
