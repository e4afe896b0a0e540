"""Rewrite what Keras 2 saved of a layer to what Keras 3 reads."""

from collections.abc import Mapping
from typing import Any

from batchcls.building.keras.known_layers import OPERATIONS

_OPERATIONS = {
    "math.truediv": "TrueDivide",
    "__operators__.truediv": "TrueDivide",
    "math.multiply": "Multiply",
    "__operators__.multiply": "Multiply",
    "math.add": "Add",
    "__operators__.add": "Add",
    "math.subtract": "Subtract",
    "__operators__.subtract": "Subtract",
}
"""Operations of TensorFlow that have the same meaning in Keras 3."""
_AMBIGUOUS = ("Add", "Subtract", "Multiply", "Maximum", "Minimum")
"""Names that a layer and an operation of Keras 3 share."""
_REMOVED = {
    "DepthwiseConv2D": ("groups",),
    "Conv2DTranspose": ("groups",),
    "SeparableConv1D": ("groups", "kernel_initializer", "kernel_regularizer", "kernel_constraint"),
    "SeparableConv2D": ("groups", "kernel_initializer", "kernel_regularizer", "kernel_constraint"),
    "BatchNormalization": ("fused", "virtual_batch_size", "adjustment"),
}
"""Settings of Keras 2, by layer, that say nothing that the layer's weights do not say."""


def modernized(value: Mapping[str, Any]) -> dict[str, Any]:
    """A layer's configuration as Keras 3 has it; one of Keras 3 is returned as it is, in a new dictionary."""
    layer = dict(value)
    config = layer.get("config")
    if isinstance(config, list) and layer.get("class_name") == "Sequential":  # Keras 1 and early Keras 2
        config = {"name": "sequential", "layers": config}
    if not isinstance(config, Mapping):
        return layer
    name = layer.get("class_name")
    if name == "TFOpLambda" and config.get("function") in _OPERATIONS:
        return _operation(layer, config)
    if "module" not in layer and (name in OPERATIONS or (name in _AMBIGUOUS and _has_two_arguments(layer))):
        layer["module"] = "keras.src.ops.numpy"  # Keras 3 leaves it out in HDF5 files
    config = {key: item for key, item in config.items() if key not in _REMOVED.get(str(name), ())}
    axis = config.get("axis")
    if isinstance(axis, list) and len(axis) == 1:
        config["axis"] = axis[0]
    if name == "LeakyReLU" and "alpha" in config:
        config["negative_slope"] = config.pop("alpha")
    shape = config.pop("batch_input_shape", None)
    if shape is not None and name == "InputLayer":
        config["batch_shape"] = shape
    if name == "Sequential":
        config["layers"] = _with_input(config["layers"])
    layer["config"] = config
    return layer


def _has_two_arguments(layer: Mapping[str, Any]) -> bool:
    """Whether a layer is called with two arguments, as operations are; layers are called with one list."""
    nodes = layer.get("inbound_nodes") or [None]
    return isinstance(nodes[0], Mapping) and len(nodes[0].get("args", ())) == 2


def _with_input(layers: list[Any]) -> list[Any]:
    """The layers of a Sequential, behind the input layer that the first one's ``batch_input_shape`` stands for."""
    first = layers[0] if layers and isinstance(layers[0], Mapping) else {}
    settings = first.get("config")
    shape = settings.get("batch_input_shape") if isinstance(settings, Mapping) else None
    if shape is None or first.get("class_name") == "InputLayer":
        return layers
    return [{"class_name": "InputLayer", "config": {"batch_shape": shape, "name": "input"}}, *layers]


def _operation(layer: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """An operation of TensorFlow on a layer's output and a number, or on two outputs, as one of Keras."""
    nodes = []
    for source, node, output, arguments in layer["inbound_nodes"]:
        other = arguments["y"]
        nodes.append({"args": [_tensor([source, node, output]), _tensor(other)], "kwargs": {}})
    return {
        "module": "keras.src.ops.numpy",
        "class_name": _OPERATIONS[config["function"]],
        "config": {"name": layer["name"]},
        "name": layer["name"],
        "inbound_nodes": nodes,
    }


def _tensor(value: Any) -> Any:
    """A layer's output as Keras 3 refers to it; a number stays one."""
    if not isinstance(value, list) or not value or not isinstance(value[0], str):
        return value
    return {"class_name": "__keras_tensor__", "config": {"shape": [], "dtype": "float32", "keras_history": value}}
