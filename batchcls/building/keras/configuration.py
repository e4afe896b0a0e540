"""Check the configuration of a Keras file against the allow-list, and rewrite it to what Keras may see."""

from collections.abc import Mapping
from typing import Any

from batchcls.building.keras.keras_2 import modernized
from batchcls.building.keras.known_layers import ACTIVATIONS, CLASSES, FLOATS, MODELS, PACKAGES, SPECIAL_MODULES

_LARGEST_NUMBER = 1 << 20
"""Largest number of channels, pixels and the like; a network with more could not be computed."""
_LONGEST_TEXT, _MOST_ITEMS = 1000, 5000
_CONSTANT_KEYS = ("dtype", "keras_history", "value", "start", "stop", "step")
_CONSTANT_TYPES = ("float16", "bfloat16", "float32", "float64", "int32", "int64")
_UNUSED = ("_initializer", "_regularizer", "_constraint")
"""Ends of keys of which only training takes notice: the weights are in the file."""
_LEFT_OUT = frozenset(("shared_object_id", "compile_config", "registered_name", "activity_regularizer"))
_EXPORT = (
    "export it in the program that has its code: model.export('model.onnx', format='onnx'), then: "
    "batchcls build model.onnx --labels A,B,... --out ENGINE"
)
_REPLACE = "replace it by a layer of Keras, such as keras.layers.Rescaling, and save the model again; or "
_REMEDIES = {
    "Lambda": f"is Python code, which batchcls never runs from a file; {_REPLACE}{_EXPORT}",
    "__lambda__": f"is Python code, which batchcls never runs from a file; {_REPLACE}{_EXPORT}",
    "TFOpLambda": f"is an operation of TensorFlow; {_REPLACE}{_EXPORT}",
    "TFSMLayer": f"reads a SavedModel of TensorFlow, which is code; {_EXPORT}",
    "TorchModuleWrapper": f"is a pickled module of PyTorch, which is code; {_EXPORT}",
}
"""Reason for refusing a class, and the remedy, as text for an error; by class name."""


class UnsafeConfigurationError(ValueError):
    """A configuration that names anything beyond the allow-list; the message says what, and what to do."""


def checked_configuration(values: Any) -> dict[str, Any]:
    """A model's configuration that names nothing but what the allow-list knows, for Keras 3.

    Initializers, regularizers and constraints are left out, because only training uses them; numbers are computed in
    float32. What is left is made of JSON values and of classes whose module this function itself wrote.

    Args:
        values: The configuration as in the file, from ``config.json`` or from the attribute ``model_config``.

    Raises:
        UnsafeConfigurationError: If anything in it is no such value.
    """
    if not isinstance(values, dict) or values.get("class_name") not in MODELS:
        kind = values.get("class_name") if isinstance(values, dict) else values
        raise UnsafeConfigurationError(
            f"its network is of class {_text(kind)}, whose code is not in the file; {_EXPORT}"
        )
    try:
        checked: dict[str, Any] = _checked(values)
    except RecursionError as error:
        raise UnsafeConfigurationError("its configuration is nested too deep") from error
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise UnsafeConfigurationError(f"its configuration is no configuration of Keras ({error!r})") from error
    return checked


def _checked(value: Any, key: str = "") -> Any:
    """``value`` of the key ``key``, with every mapping and list in it."""
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        if abs(value) > _LARGEST_NUMBER and key != "seed":
            raise UnsafeConfigurationError(f"{key} is {value}, beyond {_LARGEST_NUMBER:,}")
        return value
    if isinstance(value, str):
        return _checked_text(value, key)
    if isinstance(value, list | tuple):
        if len(value) > _MOST_ITEMS:
            raise UnsafeConfigurationError(f"{key} holds {len(value):,} items, of {_MOST_ITEMS:,} at most")
        return [_checked(item, key) for item in value]
    if "class_name" in value or "module" in value or "registered_name" in value:
        return _checked_object(value)
    return _checked_mapping(value)


def _checked_mapping(values: Mapping[str, Any]) -> dict[str, Any]:
    checked: dict[str, Any] = {}
    for key, value in values.items():
        if key in _LEFT_OUT:
            continue
        if key == "initializer" or key.endswith(_UNUSED):
            checked[key] = "zeros" if key.endswith("initializer") else None
        else:
            checked[key] = _checked(value, key)
    return checked


def _checked_text(value: str, key: str) -> str:
    if len(value) > _LONGEST_TEXT:
        raise UnsafeConfigurationError(f"{key} is a text of {len(value):,} characters")
    if key.endswith("activation") and value not in ACTIVATIONS:
        raise UnsafeConfigurationError(f"its activation {_text(value)} is none of Keras's own; {_EXPORT}")
    return value


def _checked_object(value: Mapping[str, Any]) -> Any:
    """An object of the allow-list, with its module written anew, or the plain value that stands for it."""
    name, config = value.get("class_name"), value.get("config")
    if name in ("DTypePolicy", "Policy") and isinstance(config, Mapping):
        return str(config.get("name"))
    if name == "function" and isinstance(config, str) and config in ACTIVATIONS:
        return config
    if name in ("__keras_tensor__", "__tensor__", "__numpy__", "__slice__", "__ellipsis__"):
        return {"class_name": name, "config": _checked_constant(config)}
    return _checked_layer(modernized(value))


def _checked_constant(config: Any) -> dict[str, Any]:
    """The description of a tensor or of a slice: numbers, a layer's name, and a number type.

    The shape and the type of a layer's output are left out: Keras computes them anew.
    """
    constant = {key: _checked(config[key], key) for key in _CONSTANT_KEYS if key in config}
    if "keras_history" in constant:
        return {"shape": [], "dtype": "float32", "keras_history": constant["keras_history"]}
    if constant.get("dtype", "float32") not in _CONSTANT_TYPES:
        raise UnsafeConfigurationError(f"a constant is of type {_text(constant['dtype'])}")
    return constant


def _checked_layer(value: Mapping[str, Any]) -> dict[str, Any]:
    name, registered = str(value.get("class_name")), value.get("registered_name")
    place = str(value.get("module") or "")
    known = CLASSES.get((place if place in SPECIAL_MODULES else "", name))
    foreign = (place and place.partition(".")[0] not in PACKAGES) or registered not in (None, name)
    config = value.get("config")
    if known is None or foreign or not isinstance(config, Mapping):
        raise UnsafeConfigurationError(_refusal(value))
    checked = _checked_mapping(config)
    if "dtype" in checked:
        checked["dtype"] = _computed_type(checked["dtype"], name)
    if name == "InputLayer":
        checked["batch_shape"] = [None, *checked["batch_shape"][1:]]  # free, whatever batch size was saved
    result = {
        "module": known,
        "class_name": "Functional" if name == "Model" else name,
        "config": checked,
        "registered_name": None,
    }
    for key in ("name", "inbound_nodes"):
        if key in value:
            result[key] = _checked(value[key], key)
    return result


def _computed_type(dtype: Any, name: str) -> str:
    """float32 in the place of any type of floating point; an input layer's bytes become floats of the same values."""
    if dtype in FLOATS or (name == "InputLayer" and dtype in ("uint8", "int32", "int64")):
        return "float32"
    raise UnsafeConfigurationError(
        f"its layer {name} computes in {_text(dtype)}, as quantized networks do; save the network that it was made from"
    )


def _refusal(value: Mapping[str, Any]) -> str:
    name, module, registered = (value.get(key) for key in ("class_name", "module", "registered_name"))
    config = value.get("config")
    own = config.get("name") if isinstance(config, Mapping) else config
    place = f" of module {_text(module)}" if module is not None else ""
    other = f", registered as {_text(registered)}," if registered not in (None, name) else ""
    remedy = _REMEDIES.get(str(name), f"is none that batchcls knows to be safe; {_EXPORT}")
    return f"its layer {_text(own or value.get('name') or '')} of class {_text(name)}{place}{other} {remedy}"


def _text(value: Any) -> str:
    """A name from the file, as short text for an error."""
    text = repr(str(value))
    return text if len(text) < 80 else f"{text[:76]}...'"
