"""Give an engine's ONNX file a second output: features of each image, which novelty and embeddings are made of."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from batchcls.building.onnx.appearance_steps import add_appearance
from batchcls.building.onnx.graph_steps import GraphSteps
from batchcls.networks.feature_layers import LayerTensor, find_layers
from batchcls.networks.feature_layout import STEP_PREFIX, FeatureLayer, FeatureLayout

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
    parts = [add_appearance(steps), *(_pooled(steps, layer, opset) for layer in layers)]
    model.graph.node.append(helper.make_node("Concat", parts, ["features"], axis=1))
    model.graph.output.append(helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", layout.width]))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return layout


def _pooled(steps: GraphSteps, layer: LayerTensor, opset: int) -> str:
    """Append steps from a layer's tensor to the means of its channels, (N, C) float32; return their name."""
    name = layer.name
    if layer.element == TensorProto.BFLOAT16:  # whose 8 bits are too few for a mean
        name = steps.add("Cast", name, to=TensorProto.FLOAT)
    if layer.axes == (2, 3):
        name = steps.add("GlobalAveragePool", name)
    else:
        axes: dict[str, Any] = {} if opset >= _AXES_AS_INPUT else {"axes": list(layer.axes)}
        name = steps.add("ReduceMean", name, *([] if axes else [np.array(layer.axes)]), **axes, keepdims=0)
    return steps.add("Flatten", steps.add("Cast", name, to=TensorProto.FLOAT))
