"""What a checkpoint may hold beside its weights: stand-ins that keep values and can do nothing.

PyTorch's restricted unpickler takes a callable for each name that it may meet. None of those here is what the name
says: no class of a checkpoint is ever made, and nothing of it is imported.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np

_LARGEST_BYTES = 4096
"""Of a NumPy scalar, or of an array that is looked into."""

_DEEPEST = 4
_MOST_VALUES = 10_000
"""That are looked at in a file."""


class Namespace:
    """Any object; what it holds is left where it is, so that a small file cannot claim much memory."""

    def __new__(cls, *arguments: Any, **_: Any) -> "Namespace":
        made = super().__new__(cls)
        made.__dict__["arguments"] = arguments
        return made

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.__dict__["state"] = state

    def attributes(self) -> Mapping[Any, Any]:
        state = self.__dict__.get("state")
        return state if isinstance(state, Mapping) else {}


class ElementType(Namespace):
    """A NumPy dtype."""

    def values(self, content: Any) -> list[Any]:
        """The numbers, or the texts, in so many bytes; none of a type that holds something else."""
        arguments, state = self.__dict__["arguments"], self.__dict__.get("state")
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else "="
        if not isinstance(content, bytes) or len(content) > _LARGEST_BYTES:
            return []
        try:
            kind = np.dtype(str(arguments[0])).newbyteorder(">" if order == ">" else "<")
            return list(np.frombuffer(content, kind).tolist()) if kind.kind in "biufUS" else []
        except (LookupError, TypeError, ValueError, SystemError):  # the last, of characters beyond Unicode's
            return []


class Array(Namespace):
    """A NumPy array."""

    def values(self) -> list[Any]:
        """Its numbers or texts, flat; none if there are many."""
        match self.__dict__.get("state"):
            case (_, _, ElementType() as kind, _, content):
                return content if isinstance(content, list) else kind.values(content)
        return []


def named_values(about: Mapping[Any, Any], keys: Collection[str]) -> Iterator[tuple[str, Any]]:
    """What stands under one of ``keys``, in lower case, wherever in what a file holds; and under which."""
    yield from _named_values(about, keys, [_MOST_VALUES], 0)


def _named_values(
    values: Mapping[Any, Any], keys: Collection[str], left: list[int], depth: int
) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        left[0] -= 1
        if left[0] < 0:
            return
        inner = value.attributes() if isinstance(value, Namespace) else value
        if isinstance(name, str) and name.lower() in keys:
            yield name.lower(), value
        if isinstance(name, str) and isinstance(inner, Mapping) and depth < _DEEPEST:
            yield from _named_values(inner, keys, left, depth + 1)


def _scalar(kind: Any = None, content: Any = None) -> Any:
    values = kind.values(content) if isinstance(kind, ElementType) else []
    return values[0] if values else None


def _mapping(*_: Any) -> OrderedDict[Any, Any]:
    return OrderedDict()


def _sequence(*_: Any) -> list[Any]:
    return []


def _path(*parts: Any) -> str:
    return "/".join(str(part) for part in parts[:256] if isinstance(part, str))


_NUMPY = ("numpy._core", "numpy.core")
_PATHS = ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath", "Path", "PurePath")
_CONFIGURATIONS = (
    "argparse.Namespace",
    "types.SimpleNamespace",
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "omegaconf.nodes.AnyNode",
    "omegaconf.nodes.BooleanNode",
    "omegaconf.nodes.FloatNode",
    "omegaconf.nodes.IntegerNode",
    "omegaconf.nodes.StringNode",
    "typing.Any",
)
_DICTIONARIES = (
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "addict.addict.Dict",
    "easydict.EasyDict",
    "ml_collections.config_dict.config_dict.ConfigDict",
    "yacs.config.CfgNode",
)
_FACTORIES = ("dict", "int", "float", "str", "bool", "tuple", "list", "object", "bytes", "slice", "range")
_VALUES = (
    "datetime.date",
    "datetime.datetime",
    "datetime.time",
    "datetime.timedelta",
    "datetime.timezone",
    "decimal.Decimal",
    "fractions.Fraction",
    "torch.torch_version.TorchVersion",
    "uuid.UUID",
)

STAND_INS: tuple[tuple[Callable[..., Any], str], ...] = (
    *((_scalar, f"{module}.multiarray.scalar") for module in _NUMPY),
    *((Array, f"{module}.multiarray._reconstruct") for module in _NUMPY),
    (Array, "numpy.ndarray"),
    (ElementType, "numpy.dtype"),
    *((Namespace, f"numpy.{kind.__name__}") for kind in sorted(set(np.sctypeDict.values()), key=str)),
    *((Namespace, f"numpy.dtypes.{name}") for name in dir(np.dtypes) if name.endswith("DType")),
    (_mapping, "collections.defaultdict"),
    (_sequence, "collections.deque"),
    (_sequence, "builtins.frozenset"),
    *((OrderedDict, name) for name in _DICTIONARIES),
    *((Namespace, name) for name in _CONFIGURATIONS),
    *((Namespace, f"builtins.{name}") for name in _FACTORIES),
    *((Namespace, name) for name in _VALUES),
    *((_path, f"{module}.{name}") for module in ("pathlib", "pathlib._local") for name in _PATHS),
)
"""By the name that a checkpoint gives it: PyTorch's allow-list, for what is no weight."""
