"""Quantize a float32 ONNX network to int8 by NNCF, and leave the layers in float32 that int8 would spoil."""

import io
import logging
import math
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from rich.console import Console

from batchcls.building.model_sources.base import ModelSource
from batchcls.building.onnx.edits import with_preprocessing
from batchcls.building.verification import LEAST_AGREEMENT
from batchcls.engine.manifest import keeps_precision
from batchcls.errors import RecipeError, SlidesError, temporary_files
from batchcls.images.sources import open_source
from batchcls.records import Logits, NormalizedImages

logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # hides its warning that there is no GPU
import nncf  # noqa: E402
from nncf.quantization.advanced_parameters import OverflowFix  # noqa: E402

CALIBRATION_IMAGES = 300
"""Images that the ranges of activations are measured on, at most."""
_RANKING_IMAGES = 32
"""Images by which layers are ranked: the ones that plain int8 answers worst."""
_MOST_STEPS = 20
"""Steps of putting layers back to float32, at most; a step puts back one layer, or several with the same input."""
_MOST_NAMED_LAYERS = 10
"""Layers that a note names before it only counts the others."""
_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")

Probabilities = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class QuantizedNetwork:
    """A network in int8, and how far it agrees with its float32 original."""

    model: onnx.ModelProto
    """The network, with QuantizeLinear and DequantizeLinear around the layers that are computed in int8."""
    float_layers: tuple[str, ...]
    """Names of the layers that stay in float32 for the sake of agreement, in the ONNX file's order."""
    agreement: float
    """Share of the calibration images whose most probable class is that of float32, 0 to 1."""
    agrees_enough: bool
    """Whether ``agreement`` reaches the required one, within the chance error of so few images."""


def write_int8(source: ModelSource, images: Path | None, path: Path, console: Console) -> None:
    """Write the engine's ONNX file in int8: the quantized network behind its preprocessing, which stays in float32.

    Args:
        images: Folder of typical images; None is refused.

    Raises:
        RecipeError: If no folder of images is named.
        SlidesError: If no image in the folder can be read.
    """
    if images is None:
        raise RecipeError("int8 needs typical images to take its ranges from; name a folder: --calibrate DIR")
    slides = list(open_source([images]))
    inputs = source.reference.normalized(slides[:: -(-len(slides) // CALIBRATION_IMAGES) or 1])
    if not inputs:
        raise SlidesError(f"no image that can be read was found in {str(images)!r} to calibrate with")
    classifier = source.float_network()
    axes = (0, 1, 2, 3) if classifier.layout == "NCHW" else (0, 2, 3, 1)
    inputs = [np.ascontiguousarray(image.transpose(axes)) for image in inputs]
    with temporary_files():  # of NNCF
        quantized = quantize(classifier.model, inputs, LEAST_AGREEMENT)
    if quantized.float_layers or not quantized.agrees_enough:
        remedy = (
            "leave --precision out" if keeps_precision(source.recipe.architecture) else "build with --precision fp16"
        )
        console.print(_float_layers_note(quantized, len(inputs), remedy), highlight=False)
    onnx.save(with_preprocessing(quantized.model, classifier.layout, source.recipe.preprocess), path)


def _float_layers_note(quantized: QuantizedNetwork, images: int, remedy: str) -> str:
    names = [name.removeprefix("network/") for name in quantized.float_layers]
    more = f" and {len(names) - _MOST_NAMED_LAYERS:,} more" if len(names) > _MOST_NAMED_LAYERS else ""
    few = ", ".join(names[:_MOST_NAMED_LAYERS]) + more
    layers = f"{len(names)} layer{'s' if len(names) != 1 else ''} left in float32{': ' if names else ''}{few}"
    shortfall = "" if quantized.agrees_enough else f", below {LEAST_AGREEMENT}; {remedy}"
    return (
        f"int8 with {layers}; top-1 agreement over {images:,} images of --calibrate is "
        f"{quantized.agreement:.4f}{shortfall}"
    )


def quantize(model: onnx.ModelProto, images: Sequence[NormalizedImages], least_agreement: float) -> QuantizedNetwork:
    """``model`` in int8, except for layers that stay in float32 so that agreement reaches ``least_agreement``.

    The result answers alike on every CPU. A CPU without VNNI adds pairs of 8-bit products in 16 bits, which overflow
    beyond 32,767: so weights have 7 bits (2 * 255 * 64 = 32,640), and a product of two activations stays in float32.
    On 2,604 smears, 99.69 % of an int8 GoogLeNet's labels are float32's (8 differ). With 8-bit weights 99.73 % are,
    but only 44 % on a CPU with AVX2 alone. With 8-bit weights and the first layer in float32, where most of the
    overflow was, 99.73 % are, at a quarter less speed.

    Zero points are 0: weights are signed, and activations behind a ReLU are unsigned. Where int8 agrees too little,
    layers are put back to float32, first the layers whose return brings the answers closest to float32's; 20 such
    steps may not be enough. Agreement is measured by ONNX Runtime without its optimizations, operator by operator, so
    that every machine builds the same engine. NNCF's bias correction is off: it shifts biases by means over the
    few images, which costs more than it mends (0.021 instead of 0.0045 on 2,048 drawn cells).

    Args:
        model: A network with one input, of normalized images. In place, its unnamed nodes are named and its batch
            size becomes free.
        images: Typical images, each in the shape that the model takes, with a batch axis of 1. They serve to calibrate
            and to measure agreement: ranges do not learn labels, and a few held-out images would measure it coarsely.
        least_agreement: Share of the images whose label must be that of float32, 0 to 1.
    """
    weights = {item.name for item in model.graph.initializer}
    (network_input,) = [value for value in model.graph.input if value.name not in weights]
    network_input.type.tensor_type.shape.dim[0].dim_param = "batch"
    for node in model.graph.node:
        node.name = node.name or node.output[0]  # else NNCF would invent names that tell nobody which layer is meant
    activation_products = _activation_products(model.graph, weights)
    exact = _probabilities(model, images)

    def closeness(candidate: onnx.ModelProto, items: Iterable[tuple[NormalizedImages, Probabilities]]) -> object:
        ranking_images, expected = zip(*items, strict=True)
        answers = expected if candidate is model else _probabilities(candidate, ranking_images)
        errors = np.abs(np.subtract(answers, expected)).max(axis=1)
        # Layers are ranked by errors of probabilities: the number of right labels says little about one layer.
        enough = _agrees_enough(_agreement(np.array(answers), np.array(expected)), len(expected), least_agreement)
        return 1.0 if enough else 1 - errors.mean(), list(1 - errors)

    dataset = nncf.Dataset(list(zip(images, exact, strict=True)), lambda item: {network_input.name: item[0]})
    logging.getLogger("nncf").setLevel(logging.ERROR)
    with redirect_stdout(io.StringIO()):  # NNCF draws its progress bars on standard output
        result: onnx.ModelProto = nncf.quantize_with_accuracy_control(
            model,
            dataset,
            dataset,
            closeness,
            max_drop=0,
            preset=nncf.QuantizationPreset.PERFORMANCE,
            subset_size=CALIBRATION_IMAGES,
            ignored_scope=nncf.IgnoredScope(names=activation_products),
            advanced_quantization_parameters=nncf.AdvancedQuantizationParameters(
                overflow_fix=OverflowFix.ENABLE, disable_bias_correction=True
            ),
            advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
                max_num_iterations=_MOST_STEPS, ranking_subset_size=_RANKING_IMAGES
            ),
        )
    agreement = _agreement(_probabilities(result, images), exact)
    put_back = tuple(name for name in _float_layers(result) if name not in activation_products)
    return QuantizedNetwork(result, put_back, agreement, _agrees_enough(agreement, len(images), least_agreement))


def _activation_products(graph: onnx.GraphProto, weights: set[str]) -> list[str]:
    """Names of the layers that multiply one activation by another, and so have no weights to store in 7 bits."""
    constants = weights | {name for node in graph.node if node.op_type == "Constant" for name in node.output}
    return [node.name for node in graph.node if node.op_type in _LAYERS and constants.isdisjoint(node.input[:2])]


def exact_logits(model: onnx.ModelProto, inputs: npt.NDArray[Any]) -> Logits:
    """Logits by ONNX Runtime without optimizations: each operator as ONNX defines it, on every CPU alike.

    Args:
        inputs: (N, ...) in the model's own layout and type; the model is given one at a time.

    Returns:
        (N, classes) float32.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: item[None]})[0] for item in inputs])


def _probabilities(model: onnx.ModelProto, images: Sequence[NormalizedImages]) -> Probabilities:
    """(N, classes) float64, 0 to 1, of images of (1, ...) each."""
    logits = exact_logits(model, np.concatenate(images)).astype(np.float64)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: Probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    return shares


def _agreement(answers: Probabilities, expected: Probabilities) -> float:
    """Share of rows with the same most probable class, 0 to 1."""
    return float((answers.argmax(axis=1) == expected.argmax(axis=1)).mean())


def _agrees_enough(agreement: float, images: int, least_agreement: float) -> bool:
    """Whether no more labels differ than ``least_agreement`` allows, and two standard deviations of chance beyond.

    One or two images that float32 itself is undecided on are no reason to put a layer back to float32: the labels of a
    few hundred images say little about one layer.
    """
    expected = images * (1 - least_agreement)
    return images * (1 - agreement) <= expected + 2 * math.sqrt(expected)


def _float_layers(model: onnx.ModelProto) -> tuple[str, ...]:
    """Names of the layers whose weights are still float32."""
    floats = {item.name for item in model.graph.initializer if item.data_type == onnx.TensorProto.FLOAT}
    return tuple(node.name for node in model.graph.node if node.op_type in _LAYERS and node.input[1] in floats)
