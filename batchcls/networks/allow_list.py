"""The names that a checkpoint may refer to beside its weights, each with the stand-in that takes its place."""

import struct
from collections import OrderedDict
from collections.abc import Callable, Collection
from pickle import UnpicklingError
from types import ModuleType
from typing import Any

import numpy as np
from torch import optim
from torch.nn import modules
from torch.optim import lr_scheduler

from batchcls.networks.unpickling_stand_ins import ArrayStandIn, DtypeStandIn, ObjectStandIn

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
