"""A float32 ONNX network becomes one that computes in eight bits, by NNCF, but for the layers that cannot."""

import io
import logging
import math
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
import openvino as ov

from batchcls.records import NormalisedImages

logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # which misses a GPU that nobody needs
import nncf  # noqa: E402
from nncf.quantization.advanced_parameters import OverflowFix  # noqa: E402

IMAGES = 300
"""That the ranges of activations are taken from."""
_RANKED_BY = 32
"""Images: those that plain int8 answers worst tell the layers that it hurts."""
_MOST_STEPS = 20
"""After which what agrees too little still is left so; each puts a layer, or several of one input, back to float32."""
_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")

Probabilities = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Quantised:
    """A network in eight bits, and what it cost."""

    model: onnx.ModelProto
    """With QuantizeLinear and DequantizeLinear around what will be computed in int8."""
    float_layers: tuple[str, ...]
    """By their names in the ONNX file, in its order."""
    agreement: float
    """Share of the images whose most probable class is that of float32, 0 to 1."""
    enough: bool
    """Whether it is what was asked for, as far as so few images can tell."""


def quantised(model: onnx.ModelProto, images: Sequence[NormalisedImages], least_agreement: float) -> Quantised:
    """``model`` in int8, with as many layers left in float32 as ``least_agreement`` over the images takes.

    Zero points are 0: weights are signed, and what follows a ReLU is unsigned. Layers are put back one by one, those
    first without which the answers come closest to float32's; of which there may not be enough in 20 steps.

    Two of NNCF's habits are left out, for what they cost GoogLeNet on 2,048 drawn cells (mean error of a probability;
    both 0.015, neither 0.0045). It gives the first layer's weights half their range, lest a CPU without VNNI overflow
    (0.026 without the other): such a one shows at the start of a run, where its answers are compared with those of
    the build. And it shifts biases by means over the few images (0.021).

    Args:
        model: With one input, of normalised images; its nodes are given names where they have none.
        images: Typical ones, each as the model takes it, batch axis and all. They are both calibrated and measured
            with: ranges do not learn labels, and the share that a few held-out images agree on would be a coarse one.
    """
    weights = {item.name for item in model.graph.initializer}
    (name,) = [value.name for value in model.graph.input if value.name not in weights]
    for node in model.graph.node:
        node.name = node.name or node.output[0]  # NNCF would make its own, of which nobody knows what they name
    exact = _probabilities(model, images)

    def closeness(candidate: onnx.ModelProto, items: Iterable[tuple[NormalisedImages, Probabilities]]) -> object:
        shown, theirs = zip(*items, strict=True)
        ours = theirs if candidate is model else _probabilities(candidate, shown)
        errors = np.abs(np.subtract(ours, theirs)).max(axis=1)
        # To rank layers by: how many labels are right says little of one layer.
        enough = _enough(_agreement(np.array(ours), np.array(theirs)), len(theirs), least_agreement)
        return 1.0 if enough else 1 - errors.mean(), list(1 - errors)

    dataset = nncf.Dataset(list(zip(images, exact, strict=True)), lambda item: {name: item[0]})
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
            advanced_quantization_parameters=nncf.AdvancedQuantizationParameters(
                overflow_fix=OverflowFix.DISABLE, disable_bias_correction=True
            ),
            advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
                max_num_iterations=_MOST_STEPS, ranking_subset_size=_RANKED_BY
            ),
        )
    agreement = _agreement(_probabilities(result, images), exact)
    return Quantised(result, _float_layers(result), agreement, _enough(agreement, len(images), least_agreement))


def _probabilities(model: onnx.ModelProto, images: Sequence[NormalisedImages]) -> Probabilities:
    """(N, classes), by what the engine will be run with."""
    network = ov.Core().read_model(model.SerializeToString())
    network.reshape(images[0].shape)  # of a free batch size OpenVINO 2026.4 computes int8 wrongly
    compiled = ov.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    logits = np.concatenate([compiled(image)[0] for image in images]).astype(np.float64)
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
