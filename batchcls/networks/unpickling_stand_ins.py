"""Stand-ins for the objects that a checkpoint may hold beside its weights, which keep values and run no code.

PyTorch's restricted unpickler takes a callable for each name that a checkpoint may refer to. Here each such name, like
``numpy.ndarray``, has a stand-in, so no class that a checkpoint names is ever instantiated, and no module imported.
"""

import struct
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping
from pickle import UnpicklingError
from types import ModuleType
from typing import Any, Self

import numpy as np
from torch import optim
from torch.nn import modules
from torch.optim import lr_scheduler

UNREADABLE = (
    UnpicklingError,
    RuntimeError,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    MemoryError,
    struct.error,
)
"""Errors that PyTorch's restricted unpickler raises for damaged or foreign files."""
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


def _classes_of(modules_of_classes: Collection[ModuleType]) -> list[str]:
    """The full names of the classes that are defined in the modules, or in modules inside them."""
    classes = [(module, value) for module in modules_of_classes for value in vars(module).values()]
    return sorted(
        f"{value.__module__}.{value.__qualname__}"
        for module, value in classes
        if isinstance(value, type) and value.__module__.startswith(module.__name__)
    )


def _scalar(dtype: Any = None, content: Any = None) -> Any:
    values = dtype.values(content) if isinstance(dtype, DtypeStandIn) else []
    return values[0] if values else None


def _mapping(*_: Any) -> OrderedDict[Any, Any]:
    return OrderedDict()


def _sequence(*_: Any) -> list[Any]:
    return []


def _path(*parts: Any) -> str:
    return "/".join(str(part) for part in parts[:256] if isinstance(part, str))


_NUMPY = ("numpy._core", "numpy.core")
_PATHS = ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath", "Path", "PurePath")
_TORCH = (
    *(optim, lr_scheduler),
    *(modules.activation, modules.batchnorm, modules.instancenorm, modules.loss, modules.normalization),
)
"""Modules of PyTorch whose classes stand in configurations, such as that of the optimizer; none is a network."""
_CONFIGURATIONS = (
    "argparse.Namespace",
    "types.SimpleNamespace",
    "functools.partial",
    "mmengine.logging.history_buffer.HistoryBuffer",
    "omegaconf.base.UnionNode",
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "omegaconf.nodes.AnyNode",
    "omegaconf.nodes.BooleanNode",
    "omegaconf.nodes.BytesNode",
    "omegaconf.nodes.EnumNode",
    "omegaconf.nodes.FloatNode",
    "omegaconf.nodes.IntegerNode",
    "omegaconf.nodes.PathNode",
    "omegaconf.nodes.StringNode",
    "typing.Any",
)
_DICTIONARIES = (
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "addict.addict.Dict",
    "box.box.Box",
    "easydict.EasyDict",
    "ml_collections.config_dict.config_dict.ConfigDict",
    "mmcv.utils.config.ConfigDict",
    "mmengine.config.config.ConfigDict",
    "munch.Munch",
    "yacs.config.CfgNode",
)
_CALLBACKS = (
    "early_stopping.EarlyStopping",
    "lr_monitor.LearningRateMonitor",
    "model_checkpoint.ModelCheckpoint",
    "stochastic_weight_avg.StochasticWeightAveraging",
)
"""Callbacks of Lightning, whose classes are keys in checkpoints of versions before 1.5."""
_FACTORIES = ("dict", "int", "float", "str", "bool", "tuple", "list", "object", "bytes", "slice", "range")
_VALUES = (
    "PIL.Image.Resampling",
    "datetime.date",
    "datetime.datetime",
    "datetime.time",
    "datetime.timedelta",
    "datetime.timezone",
    "decimal.Decimal",
    "fractions.Fraction",
    "numpy.random._mt19937.MT19937",
    "numpy.random._pcg64.PCG64",
    "numpy.random._pickle.__bit_generator_ctor",
    "numpy.random._pickle.__generator_ctor",
    "numpy.random._pickle.__randomstate_ctor",
    "numpy.random.bit_generator.SeedSequence",
    "numpy.random.bit_generator.__pyx_unpickle_SeedSequence",
    "random.Random",
    "signal.Signals",
    "torch.torch_version.TorchVersion",
    "torchvision.transforms.functional.InterpolationMode",
    "uuid.UUID",
)

STAND_INS: tuple[tuple[Callable[..., Any], str], ...] = (
    *((_scalar, f"{module}.multiarray.scalar") for module in _NUMPY),
    *((ArrayStandIn, f"{module}.multiarray._reconstruct") for module in _NUMPY),
    (ArrayStandIn, "numpy.ndarray"),
    (DtypeStandIn, "numpy.dtype"),
    *((ObjectStandIn, f"numpy.{kind.__name__}") for kind in sorted(set(np.sctypeDict.values()), key=str)),
    *((ObjectStandIn, f"numpy.dtypes.{name}") for name in dir(np.dtypes) if name.endswith("DType")),
    (_mapping, "collections.defaultdict"),
    (_sequence, "collections.deque"),
    (_sequence, "builtins.frozenset"),
    *((OrderedDict, name) for name in _DICTIONARIES),
    *((ObjectStandIn, name) for name in _CONFIGURATIONS),
    *((ObjectStandIn, f"builtins.{name}") for name in _FACTORIES),
    *((ObjectStandIn, name) for name in _VALUES),
    *((ObjectStandIn, f"pytorch_lightning.callbacks.{name}") for name in _CALLBACKS),
    *((ObjectStandIn, name) for name in _classes_of(_TORCH)),
    *((_path, f"{module}.{name}") for module in ("pathlib", "pathlib._local") for name in _PATHS),
)
"""Pairs, for PyTorch's allow-list, of a stand-in and the name in checkpoints of the object that it replaces."""
