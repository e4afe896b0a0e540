"""Give an engine's ONNX file a second output: features of each image, which novelty and embeddings are made of."""

import math
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from batchcls.building.onnx.appearance_steps import add_appearance
from batchcls.building.onnx.graph_steps import GraphSteps
from batchcls.networks.feature_layers import LayerTensor, find_layers
from batchcls.networks.feature_layout import STEP_PREFIX, FeatureLayer, FeatureLayout

_LARGEST_PATCH = 8
"""Longest side of the patches that are averaged at a time."""
_AXES_AS_INPUT = 18
"""First operator set whose ReduceMean takes its axes as an input."""


def add_features(path: Path) -> FeatureLayout | None:
    """Add the output ``features``, (N, F) float32, to the engine's ONNX file at ``path``, in place.

    Returns:
        The order of the features; None if the network has no layer that can be pooled: then the file stays as it was.
    """
    model = onnx.load(path)
    layers = find_layers(model)
    if not layers:
        return None
    layout = FeatureLayout(tuple(FeatureLayer(layer.name, layer.width) for layer in layers))
    steps = GraphSteps(model.graph, STEP_PREFIX)
    (opset,) = [item.version for item in model.opset_import if item.domain in ("", "ai.onnx")]
    height = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    quantized = {name for node in model.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    parts = [
        add_appearance(steps, height),
        *(_pooled(steps, layer, opset, layer.name in quantized) for layer in layers),
    ]
    model.graph.node.append(helper.make_node("Concat", parts, ["features"], axis=1))
    model.graph.output.append(helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", layout.width]))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return layout


def _pooled(steps: GraphSteps, layer: LayerTensor, opset: int, is_quantized: bool) -> str:
    """Append steps from a layer's tensor to the means of its channels, (N, C) float32; return their name."""
    name = layer.name
    if layer.element == TensorProto.BFLOAT16:  # whose 8 bits are too few for a mean
        name = steps.add("Cast", name, to=TensorProto.FLOAT)
    if layer.axes == (2, 3):
        kernels = () if is_quantized or layer.element == TensorProto.BFLOAT16 else _kernels(*layer.space)
        for kernel in kernels:
            name = _averaged(steps, name, layer, kernel)
        if not kernels:
            name = steps.add("GlobalAveragePool", name)
    else:
        axes: dict[str, Any] = {} if opset >= _AXES_AS_INPUT else {"axes": list(layer.axes)}
        name = steps.add("ReduceMean", name, *([] if axes else [np.array(layer.axes)]), **axes, keepdims=0)
    return steps.add("Flatten", steps.add("Cast", name, to=TensorProto.FLOAT))


def _averaged(steps: GraphSteps, name: str, layer: LayerTensor, kernel: tuple[int, int]) -> str:
    """Append a convolution that averages patches of each channel; return its name.

    OpenVINO computes in float32 what lies between an output and the last convolutions before it. Of pooled layers that
    would be whole blocks in the middle of the network, and takes 9 % more time; with these convolutions it is nothing.
    """
    dtype = np.float16 if layer.element == TensorProto.FLOAT16 else np.float32
    weights = np.full((layer.width, 1, *kernel), 1 / math.prod(kernel), dtype)
    return steps.add("Conv", name, weights, group=layer.width, strides=list(kernel))


def _kernels(height: int, width: int) -> tuple[tuple[int, int], ...]:
    """Patches whose averages, one after another, are that of a whole image; none where a side has no such factors."""
    rows, columns = _factors(height), _factors(width)
    if not rows or not columns:
        return ()
    return tuple(zip_longest(rows, columns, fillvalue=1))


def _factors(length: int) -> tuple[int, ...]:
    """Factors of a side, each at most 8, the largest first; none if there are no such factors."""
    factors: list[int] = []
    while length > 1:
        factor = max((number for number in range(2, _LARGEST_PATCH + 1) if length % number == 0), default=0)
        if not factor:
            return ()
        factors.append(factor)
        length //= factor
    return tuple(factors) or (1,)
