"""Whether an ONNX classifier seems to normalise its images itself, which a recipe would do once more."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
from onnx import numpy_helper

from batchcls.building.onnx.outputs import softmax
from batchcls.building.onnx.session import normalised
from batchcls.engine.probes import probe_pixels
from batchcls.records import Logits, NormalisedImages, Preprocess

_HARDLY = 0.02
"""Largest difference of a probability between drawn images; networks that see them have ten times as much."""
_QUIET = 0.1
"""Standard deviation of a logit over drawn images, at most, where a network hardly sees them."""
_LOUDER = 10
"""How many times as much pixels of 0 to 255 make of it."""
_BYTES = "mean = [0, 0, 0], std = [0.003921569, 0.003921569, 0.003921569]"
_UNIT = "mean = [0, 0, 0], std = [1, 1, 1]"
_ARITHMETIC = ("Mul", "Div", "Sub", "Add")
_PASSING = ("Cast", "Clip", "Identity", "Resize", "Transpose")


def input_warning(
    model: onnx.ModelProto,
    answer: Callable[[NormalisedImages], Logits],
    size_px: tuple[int, int],
    preprocess: Preprocess,
) -> str | None:
    """A line on a network of float images that was probably not trained on images as ``preprocess`` makes them."""
    plain = preprocess.mean == (0.0, 0.0, 0.0)
    steps = _first_arithmetic(model.graph)
    if steps and not plain:
        return (
            f"warning: the file itself begins with {', '.join(steps)} by constants, as one does that normalises its "
            f"input, and the recipe normalises as well; if it was trained on pixels of 0 to 255, "
            f"set in the recipe: {_BYTES}; if on 0 to 1: {_UNIT}"
        )
    pixels = probe_pixels(size_px)
    logits = answer(normalised(pixels, preprocess))
    quiet, difference = _loudness(logits), float(np.ptp(softmax(logits), axis=0).max())
    if difference >= _HARDLY or quiet >= _QUIET:
        return None
    as_bytes = replace(preprocess, mean=(0.0, 0.0, 0.0), std=(1 / 255, 1 / 255, 1 / 255))
    loud = _loudness(answer(normalised(pixels, as_bytes)))
    if not loud > max(_QUIET, _LOUDER * quiet):
        return None
    return (
        f"warning: its answers hardly change between drawn images (a probability by {difference:.4f} at most), but do "
        f"if it is fed pixels of 0 to 255; if it was trained on those, set in the recipe: {_BYTES}"
    )


def _first_arithmetic(graph: onnx.GraphProto) -> list[str]:
    """Operators by which the image is scaled and shifted with a constant, or one a channel, before all else."""
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
    tensors = [item.t for item in node.attribute if item.name == "value"]
    return not tensors or numpy_helper.to_array(tensors[0]).size <= 3


def _loudness(logits: Logits) -> float:
    return float((logits - logits.mean(axis=1, keepdims=True)).std(axis=0).max())
