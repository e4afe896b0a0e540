"""Find the layers of an ONNX network whose pooled activations describe an image, whatever made the network."""

from dataclasses import dataclass

import onnx
from onnx import TensorProto

from batchcls.networks.data_path import BATCH, WEIGHTED, DataPath, Shape

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)
_DEPTHS = (0.3, 0.55, 0.8)
"""Shares of the network's multiplications after which a layer is wanted, beside the last layer."""
_LEAST_CHANNELS = 8
_WORK_A_VALUE = 10_000, 70
"""Work of a network, in products and in results of weights, that takes 200 times as long as to pool one value."""


@dataclass(frozen=True, slots=True)
class LayerTensor:
    """A tensor of an ONNX network, on which everything depends that the network answers."""

    name: str
    axes: tuple[int, ...]
    """Axes of space: (2, 3) of (N, C, H, W), (1, 2) of (N, H, W, C), and (1,) of the tokens of (N, T, C)."""
    width: int
    """Number of channels."""
    values: int
    """Number of values of an image, of all channels together."""
    element: int
    """ONNX type of the values."""
    depth: float
    """Share of the network's multiplications that are done when the tensor is there, 0 to 1."""


def find_layers(model: onnx.ModelProto) -> tuple[LayerTensor, ...]:
    """About four tensors of a network to pool, the first one first; none of a network without a convolution.

    All paths from the input to the output lead through each of them. The last one before the classifying layers is
    always among them; the others are chosen so that to pool them all takes about a two-hundredth of the network's time.

    Args:
        model: A network from images of known height and width, (N, H, W, C) or (N, C, H, W), to logits.
    """
    path = DataPath.of(model)
    candidates = _candidates(path)
    if not candidates:
        return ()
    products = sum(map(path.multiplications, path.nodes))
    results = sum(path.values(node.output[0]) for node in path.nodes if node.op_type in WEIGHTED)
    budget = products / _WORK_A_VALUE[0] + results / _WORK_A_VALUE[1]
    last, cheap = candidates[-1], [item for item in candidates[:-1] if item.values <= budget]
    chosen = {last}
    for wanted in _DEPTHS if cheap else ():
        chosen.add(min(cheap, key=lambda item: abs(item.depth - wanted) + item.values / budget / 2))
    while len(chosen) > 1 and sum(item.values for item in chosen) > budget:
        chosen.remove(max(chosen - {last}, key=lambda item: item.values))
    return tuple(sorted(chosen, key=candidates.index))


def _candidates(path: DataPath) -> list[LayerTensor]:
    """Tensors between the first convolution and the last layer with weights that can be pooled, in order."""
    work = [path.multiplications(node) for node in path.nodes]
    convolutions = [number for number, node in enumerate(path.nodes) if node.op_type == "Conv"]
    if not convolutions or not any(work):
        return []
    total, last_layer = sum(work), max(number for number, node in enumerate(path.nodes) if node.op_type in WEIGHTED)
    candidates: list[LayerTensor] = []
    for number in path.bottlenecks():
        name = path.nodes[number].output[0]
        shape, element = path.shapes.get(name, ()), path.elements.get(name, TensorProto.UNDEFINED)
        axes = _space(shape, path.shapes[path.image])
        if not convolutions[0] <= number < last_layer or element not in _FLOATS or not axes:
            continue
        width = shape[1] if axes == (2, 3) else shape[-1]
        previous = path.shapes[candidates[-1].name] if candidates else ()
        if width < _LEAST_CHANNELS or _is_flattened(shape, previous):
            continue
        tensor = LayerTensor(name, axes, width, path.values(name), element, sum(work[: number + 1]) / total)
        if candidates and candidates[-1].depth == tensor.depth:  # of a convolution and its activation, the activation
            if candidates[-1].values < tensor.values:
                continue
            candidates.pop()
        candidates.append(tensor)
    return candidates


def _space(shape: Shape, image: Shape) -> tuple[int, ...]:
    """Axes of space of a tensor of features; empty if it has none.

    Args:
        image: (N, H, W, C) or (N, C, H, W).
    """
    if len(shape) < 3 or shape[0] != BATCH:
        return ()
    if len(shape) == 3:
        return (1,) if shape[1] > 1 else ()
    height, width = image[1:3] if image[3] in (1, 3) else image[2:]
    for axes in ((2, 3), (1, 2)) if len(shape) == 4 else ():
        rows, columns = (shape[axis] for axis in axes)
        if abs(rows * width - columns * height) < height + width and rows * columns > 1:
            return axes
    return ()


def _is_flattened(shape: Shape, previous: Shape) -> bool:
    """Whether (N, C, H * W) holds the values of the (N, C, H, W) before it."""
    return len(shape) == 3 and len(previous) == 4 and shape[1] == previous[1] and shape[2] == previous[2] * previous[3]
