"""Warn of an ONNX classifier that seems to normalize its images itself, where the recipe normalizes them as well."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
from onnx import numpy_helper

from batchcls.building.onnx.output_kinds import softmax
from batchcls.building.onnx.session import normalize
from batchcls.engine.probes import draw_probes
from batchcls.networks.preprocess import Preprocess
from batchcls.records import Logits, NormalizedImages

_LEAST_PROBABILITY_RANGE = 0.02
"""Range of a probability over drawn images below which a network may be blind to them; sound networks reach ten times
as much."""
_LEAST_LOGIT_SPREAD = 0.1
"""Standard deviation of a logit over drawn images below which a network may be blind to them."""
_LEAST_GAIN = 10
"""Factor by which pixels of 0 to 255 must raise that standard deviation."""
_ARITHMETIC = ("Mul", "Div", "Sub", "Add")
_PASSING = ("Cast", "Clip", "Identity", "Resize", "Transpose")


def normalization_warning(
    model: onnx.ModelProto,
    answer: Callable[[NormalizedImages], Logits],
    size_px: tuple[int, int],
    preprocess: Preprocess,
) -> str | None:
    """A warning, if the network was probably not trained on images as ``preprocess`` normalizes them.

    Args:
        model: A network of float images.
        answer: From (N, C, H, W) float32 to (N, classes) logits, by that network.
        size_px: Height and width of its images.
    """
    unnormalized = not any(preprocess.mean)
    steps = _first_arithmetic(model.graph)
    of_bytes = _keys(preprocess.channel_count, "0.003921569")
    if steps and not unnormalized:
        return (
            f"warning: the file itself begins with {', '.join(steps)} by constants, as one does that normalizes its "
            f"input, and the recipe normalizes as well; if it was trained on pixels of 0 to 255, "
            f"set in the recipe: {of_bytes}; if on 0 to 1: {_keys(preprocess.channel_count, '1')}"
        )
    pixels = draw_probes(size_px)
    logits = answer(normalize(pixels, preprocess))
    spread, difference = _logit_spread(logits), float(np.ptp(softmax(logits), axis=0).max())
    if difference >= _LEAST_PROBABILITY_RANGE or spread >= _LEAST_LOGIT_SPREAD:
        return None
    count = preprocess.channel_count
    as_bytes = replace(preprocess, mean=(0.0,) * count, std=(1 / 255,) * count)
    spread_of_bytes = _logit_spread(answer(normalize(pixels, as_bytes)))
    if not spread_of_bytes > max(_LEAST_LOGIT_SPREAD, _LEAST_GAIN * spread):
        return None
    return (
        f"warning: the network's answers hardly change between drawn images (a probability by {difference:.4f} at "
        f"most), but do if it is fed pixels of 0 to 255; if it was trained on those, set in the recipe: {of_bytes}"
    )


def _keys(channels: int, std: str) -> str:
    """Recipe keys that subtract nothing, and divide each of ``channels`` by ``std``."""
    return f"mean = [{', '.join(['0'] * channels)}], std = [{', '.join([std] * channels)}]"


def _first_arithmetic(graph: onnx.GraphProto) -> list[str]:
    """Types of the operators that scale or shift the image first of all, by one constant or one for each channel."""
    weights = {item.name: item for item in graph.initializer}
    constants = {name for name, item in weights.items() if np.prod(item.dims) <= 3}
    for node in graph.node:
        if node.op_type == "Constant" and _is_small(node):
            constants.update(node.output)
    (name,) = [value.name for value in graph.input if value.name not in weights]
    steps = []
    while len(users := [node for node in graph.node if name in node.input]) == 1:
        (node,) = users
        others = [value for value in node.input if value != name]
        if node.op_type in _ARITHMETIC and len(others) == 1 and others[0] in constants:
            steps.append(node.op_type)
        elif node.op_type not in _PASSING:
            break
        name = node.output[0]
    return steps


def _is_small(node: onnx.NodeProto) -> bool:
    """Whether a Constant holds at most one number for each channel."""
    tensors = [item.t for item in node.attribute if item.name == "value"]
    return not tensors or numpy_helper.to_array(tensors[0]).size <= 3


def _logit_spread(logits: Logits) -> float:
    """Largest standard deviation of a logit over images, each image's logits centered."""
    return float((logits - logits.mean(axis=1, keepdims=True)).std(axis=0).max())
