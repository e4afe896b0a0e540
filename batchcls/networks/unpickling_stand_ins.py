"""Stand-ins for the objects that a checkpoint may hold beside its weights, which keep values and run no code.

PyTorch's restricted unpickler takes a callable for each name that a checkpoint may refer to. Here each such name, like
``numpy.ndarray``, has a stand-in, so no class that a checkpoint names is ever instantiated, and no module imported.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Self

import numpy as np

_LARGEST_BYTES = 4096
"""Largest size of a NumPy scalar or array whose values are read."""

_DEEPEST = 4
"""Number of nested mappings that `find_values` goes down."""
_MOST_VALUES = 10_000
"""Largest number of values in a file that `find_values` inspects."""


class ObjectStandIn:
    """An object of any type; arguments and state are stored as read, so that a small file cannot take much memory."""

    def __new__(cls, *arguments: Any, **_: Any) -> Self:
        instance = super().__new__(cls)
        instance.__dict__["arguments"] = arguments
        return instance

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.__dict__["state"] = state

    def attributes(self) -> Mapping[Any, Any]:
        """The attributes of the object by name; empty if its state is no mapping."""
        state = self.__dict__.get("state")
        return state if isinstance(state, Mapping) else {}


class DtypeStandIn(ObjectStandIn):
    """A NumPy dtype."""

    def values(self, content: Any) -> list[Any]:
        """The numbers or strings in the bytes ``content`` of this dtype; empty for other types, or many bytes."""
        arguments, state = self.__dict__["arguments"], self.__dict__.get("state")
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else "="
        if not isinstance(content, bytes) or len(content) > _LARGEST_BYTES:
            return []
        try:
            dtype = np.dtype(str(arguments[0])).newbyteorder(">" if order == ">" else "<")
            return list(np.frombuffer(content, dtype).tolist()) if dtype.kind in "biufUS" else []
        except (LookupError, TypeError, ValueError, SystemError):  # SystemError: characters that Unicode does not have
            return []


class ArrayStandIn(ObjectStandIn):
    """A NumPy array."""

    def values(self) -> list[Any]:
        """The numbers or strings of the array, flat; empty if they take many bytes."""
        match self.__dict__.get("state"):
            case (_, _, DtypeStandIn() as dtype, _, content):
                return content if isinstance(content, list) else dtype.values(content)
        return []


def plain_value(value: Any) -> Any:
    """The list or mapping that an array or a configuration's node holds, with plain items; any other value as it is."""
    content = _content(value)
    if isinstance(content, Mapping):
        return {name: _content(item) for name, item in content.items()}
    return [_content(item) for item in content] if isinstance(content, list | tuple) else content


def _content(value: Any) -> Any:
    """What a NumPy array or a node of OmegaConf holds; any other value as it is."""
    if isinstance(value, ArrayStandIn):
        return value.values()
    if isinstance(value, ObjectStandIn):
        attributes = value.attributes()
        return attributes.get("_content", attributes.get("_val", value))
    return value


def find_values(contents: Mapping[Any, Any], keys: Collection[str]) -> Iterator[tuple[str, Any]]:
    """Pairs of a key in lower case and its value, for each of ``keys`` at the top of a file and in nested mappings.

    Args:
        contents: Everything in the file, with stand-ins for its objects.
        keys: Keys in lower case; keys in the file may have any case.
    """
    yield from _find_values(contents, keys, [_MOST_VALUES], 0)


def _find_values(
    values: Mapping[Any, Any], keys: Collection[str], left: list[int], depth: int
) -> Iterator[tuple[str, Any]]:
    """The pairs of `find_values` below ``depth`` mappings.

    Args:
        left: One number, of values that may still be inspected, which is reduced.
    """
    for name, value in values.items():
        left[0] -= 1
        if left[0] < 0:
            return
        inner = _content(value)
        inner = inner.attributes() if isinstance(inner, ObjectStandIn) else inner
        if isinstance(name, str) and name.lower() in keys:
            yield name.lower(), value
        if isinstance(name, str) and isinstance(inner, Mapping) and depth < _DEEPEST:
            yield from _find_values(inner, keys, left, depth + 1)
