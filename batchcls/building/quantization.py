"""A float32 ONNX network becomes one that computes in eight bits, by NNCF, but for the layers that cannot."""

import io
import logging
import math
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from batchcls.records import Logits, NormalisedImages

logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # which misses a GPU that nobody needs
import nncf  # noqa: E402
from nncf.quantization.advanced_parameters import OverflowFix  # noqa: E402

IMAGES = 300
"""Images that the ranges of activations are taken from."""
_RANKED_BY = 32
"""Images: those that plain int8 answers worst tell the layers that it hurts."""
_MOST_STEPS = 20
"""After which what agrees too little still is left so; each puts a layer, or several of one input, back to float32."""
_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")

Probabilities = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class QuantizedNetwork:
    """A network in eight bits, and what it cost."""

    model: onnx.ModelProto
    """With QuantizeLinear and DequantizeLinear around what will be computed in int8."""
    float_layers: tuple[str, ...]
    """Layers left in float32 beyond those that always are, by their names in the ONNX file, in its order."""
    agreement: float
    """Share of the images whose most probable class is that of float32, 0 to 1."""
    enough: bool
    """Whether it is what was asked for, as far as so few images can tell."""


def quantize(model: onnx.ModelProto, images: Sequence[NormalisedImages], least_agreement: float) -> QuantizedNetwork:
    """``model`` in int8, with as many layers left in float32 as ``least_agreement`` over the images takes.

    The result answers alike on every CPU. One without VNNI adds pairs of products of 8 bits in 16 bits, which overflow
    beyond 32,767: so weights have 7 bits (2 * 255 * 64 = 32,640), and a product of two activations stays in float32.
    Of GoogLeNet's labels on 2,604 smears 99.69 % are float32's, 8 differ; unprotected 99.73 %, on a CPU with AVX2
    alone 44 %. The first layer, where most of the overflow was, left in float32 instead: 99.73 %, and a quarter
    slower.

    Zero points are 0: weights are signed, and what follows a ReLU is unsigned. Where that agrees too little, layers
    are put back one by one, those first without which the answers come closest to float32's; of which there may not
    be enough in 20 steps. All of it is measured by ONNX Runtime with its optimisations off, operator by operator, so
    that every machine builds the same engine. NNCF's bias correction is left out: it shifts biases by means over the
    few images, which costs more than it mends (0.021 instead of 0.0045 on 2,048 drawn cells).

    Args:
        model: With one input, of normalised images; its nodes are given names where they have none, and its batch
            size becomes free.
        images: Typical ones, each as the model takes it, batch axis and all. They are both calibrated and measured
            with: ranges do not learn labels, and the share that a few held-out images agree on would be a coarse one.
    """
    weights = {item.name for item in model.graph.initializer}
    (taken,) = [value for value in model.graph.input if value.name not in weights]
    taken.type.tensor_type.shape.dim[0].dim_param = "batch"
    for node in model.graph.node:
        node.name = node.name or node.output[0]  # NNCF would make its own, of which nobody knows what they name
    kept = _products(model.graph, weights)
    exact = _probabilities(model, images)

    def closeness(candidate: onnx.ModelProto, items: Iterable[tuple[NormalisedImages, Probabilities]]) -> object:
        shown, theirs = zip(*items, strict=True)
        ours = theirs if candidate is model else _probabilities(candidate, shown)
        errors = np.abs(np.subtract(ours, theirs)).max(axis=1)
        # To rank layers by: how many labels are right says little of one layer.
        enough = _enough(_agreement(np.array(ours), np.array(theirs)), len(theirs), least_agreement)
        return 1.0 if enough else 1 - errors.mean(), list(1 - errors)

    dataset = nncf.Dataset(list(zip(images, exact, strict=True)), lambda item: {taken.name: item[0]})
    logging.getLogger("nncf").setLevel(logging.ERROR)
    with redirect_stdout(io.StringIO()):  # it draws bars there
        result: onnx.ModelProto = nncf.quantize_with_accuracy_control(
            model,
            dataset,
            dataset,
            closeness,
            max_drop=0,
            preset=nncf.QuantizationPreset.PERFORMANCE,
            subset_size=IMAGES,
            ignored_scope=nncf.IgnoredScope(names=kept),
            advanced_quantization_parameters=nncf.AdvancedQuantizationParameters(
                overflow_fix=OverflowFix.ENABLE, disable_bias_correction=True
            ),
            advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
                max_num_iterations=_MOST_STEPS, ranking_subset_size=_RANKED_BY
            ),
        )
    agreement = _agreement(_probabilities(result, images), exact)
    put_back = tuple(name for name in _float_layers(result) if name not in kept)
    return QuantizedNetwork(result, put_back, agreement, _enough(agreement, len(images), least_agreement))


def _products(graph: onnx.GraphProto, weights: set[str]) -> list[str]:
    """The layers that multiply one activation by another, by name; neither side has weights to make smaller."""
    constants = weights | {name for node in graph.node if node.op_type == "Constant" for name in node.output}
    return [node.name for node in graph.node if node.op_type in _LAYERS and constants.isdisjoint(node.input[:2])]


def exact_logits(model: onnx.ModelProto, inputs: npt.NDArray[Any]) -> Logits:
    """(N, classes) of (N, ...), operator by operator as ONNX defines them, whatever the CPU makes of eight bits."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: item[None]})[0] for item in inputs])


def _probabilities(model: onnx.ModelProto, images: Sequence[NormalisedImages]) -> Probabilities:
    """(N, classes)"""
    logits = exact_logits(model, np.concatenate(images)).astype(np.float64)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: Probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    return shares


def _agreement(ours: Probabilities, theirs: Probabilities) -> float:
    return float((ours.argmax(axis=1) == theirs.argmax(axis=1)).mean())


def _enough(agreement: float, images: int, least_agreement: float) -> bool:
    """Whether no more images differ than chance would bring along, two standard deviations of it.

    An image or two that float32 itself is undecided on are no reason to put a layer back, of which the labels of a few
    hundred images know little.
    """
    expected = images * (1 - least_agreement)
    return images * (1 - agreement) <= expected + 2 * math.sqrt(expected)


def _float_layers(model: onnx.ModelProto) -> tuple[str, ...]:
    """Those whose weights are no bytes."""
    floats = {item.name for item in model.graph.initializer if item.data_type == onnx.TensorProto.FLOAT}
    return tuple(node.name for node in model.graph.node if node.op_type in _LAYERS and node.input[1] in floats)
