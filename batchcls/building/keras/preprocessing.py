"""Tell how images become the input of a Keras network: by its own first layers, or by the application that it is."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from batchcls.building.keras.library import keras_library

_BYTES = {"mean": (0.0, 0.0, 0.0), "std": (1 / 255,) * 3}
"""Recipe keys of a network that takes 0 to 255 and normalizes by itself."""
_PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
"""Recipe keys of a network that takes 0 to 1."""
_CENTERED = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
_CAFFE = {"channels": "BGR", "mean": (103.939 / 255, 116.779 / 255, 123.68 / 255), "std": (1 / 255,) * 3}
_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_LARGE = 10.0
"""Number that arithmetic on images of 0 to 255 goes beyond, and arithmetic on 0 to 1 does not."""

_APPLICATIONS: tuple[tuple[str, str, tuple[str, ...], Mapping[str, Any]], ...] = (
    ("mobilenet_v2", "mobilenetv2_", ("bn_Conv1", "block_16_project"), _CENTERED),
    ("mobilenet", "mobilenet_", ("conv_dw_1", "conv_pw_13"), _CENTERED),
    ("vgg19", "vgg19", ("block1_conv1", "block5_conv4"), _CAFFE),
    ("vgg16", "vgg16", ("block1_conv1", "block5_conv3"), _CAFFE),
    ("resnet_v2", "resnet50v2", ("post_bn", "conv5_block1_1_conv"), _CENTERED),
    ("resnet_v2", "resnet101v2", (), _CENTERED),
    ("resnet_v2", "resnet152v2", (), _CENTERED),
    ("densenet", "densenet", ("conv1_conv", "conv5_block1_concat"), _IMAGENET),
    ("resnet", "resnet", ("conv1_bn", "conv5_block1_add"), _CAFFE),
    ("inception_resnet_v2", "inception_resnet_v2", ("conv_7b",), _CENTERED),
    ("inception_v3", "inception_v3", ("mixed0", "mixed10"), _CENTERED),
    ("xception", "xception", ("block1_conv1", "block14_sepconv2"), _CENTERED),
    ("nasnet", "nasnet", (), _CENTERED),
)
"""Modules of keras.applications: the beginning of their models' names, names of layers that are there if a model was
taken apart, and the recipe keys of their ``preprocess_input``. The first that fits counts."""


def own_preprocessing(model: Any) -> tuple[Mapping[str, Any], str] | None:
    """Recipe keys of the input of a network whose first layers normalize it, and which of them does; else None."""
    for step in _steps(model):
        kind = type(step).__name__
        numbers = _numbers(step)
        if kind in ("Rescaling", "Normalization") or (numbers and kind != "InputLayer"):
            return (_BYTES if _takes_bytes(step, kind, numbers) else _PLAIN), _description(kind)
        if step.weights:
            return None
    return None


def application(model: Any) -> tuple[str, Mapping[str, Any]] | None:
    """The module of keras.applications that a network's models or layers are named after, and its recipe keys."""
    models = list(_models(model))
    layers = {layer.name for item in models for layer in item.layers}
    for name, beginning, parts, keys in _APPLICATIONS:
        if any(item.name.startswith(beginning) for item in models) or (parts and layers.issuperset(parts)):
            return name, keys
    return None


def _models(model: Any) -> Iterator[Any]:
    """A model, and the models among its layers, to any depth."""
    yield model
    for layer in model.layers:
        if isinstance(layer, keras_library().Model):
            yield from _models(layer)


def _steps(model: Any) -> Iterator[Any]:
    """The layers and operations of a model in their order; in place of a model within, its own layers."""
    steps = model.layers if isinstance(model, keras_library().Sequential) else model.operations
    for step in steps:
        if isinstance(step, keras_library().Model):
            yield from _steps(step)
        else:
            yield step


def _numbers(step: Any) -> list[float]:
    """The constants that an operation, such as a division, calculates with; empty for a layer."""
    if not type(step).__module__.startswith("keras.src.ops.numpy"):
        return []
    values = [value for node in step._inbound_nodes for value in node.arguments.args[1:]]
    return [
        float(np.abs(np.asarray(value)).max())
        for value in values
        if isinstance(value, int | float) or (hasattr(value, "numpy") and hasattr(value, "numel"))
    ]


def _takes_bytes(step: Any, kind: str, numbers: list[float]) -> bool:
    """Whether a normalizing step is made for pixels of 0 to 255, by the size of its numbers."""
    if kind == "Rescaling":
        return float(np.abs(np.asarray(step.scale)).max()) * 255 <= 2 * _LARGE
    if kind == "Normalization":
        return float(np.abs(np.asarray(step.mean.detach().cpu())).max()) > 1.5
    return max(numbers) >= _LARGE or (kind == "Multiply" and max(numbers) * 255 <= 2 * _LARGE)


def _description(kind: str) -> str:
    layer = kind in ("Rescaling", "Normalization")
    return f"the file's own {kind} layer" if layer else f"the file's own arithmetic, {kind}"
