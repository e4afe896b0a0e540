"""Choose between TensorRT's two Python modules, which share one API, and collect their log messages."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from batchcls import machine
from batchcls.engine.plan_sidecar import Target
from batchcls.errors import EngineError

MODULES = ("tensorrt", "tensorrt_rtx")
"""Names of the modules, the preferred one first. `tensorrt`, 10.12 or later, supports every GPU and tunes a plan on it.
`tensorrt_rtx` supports GeForce and RTX cards alone, and makes plans without a card."""
_INSTALL = "pip install 'tensorrt>=10.12', or for GeForce and RTX cards: pip install 'tensorrt-rtx>=1.4'"

_OLDEST = {"tensorrt": (10, 12), "tensorrt_rtx": (1, 4)}

logger = logging.getLogger("batchcls.tensorrt")
logger.addHandler(
    logging.NullHandler()
)  # errors repeat what matters; a program that wants the rest adds its own handler


def tensorrt_module(module: str) -> Any:
    """The TensorRT module of the given name, imported.

    Raises:
        EngineError: If the module is not installed, is too old, or its library cannot be loaded.
    """
    try:
        trt = import_module(module)
    except (ImportError, OSError) as error:
        raise EngineError(f"{module} was asked for and cannot be loaded: {error}; run: {_INSTALL}") from error
    if tuple(map(int, trt.__version__.split(".")[:2])) < _OLDEST[module]:
        raise EngineError(f"{module} {trt.__version__} is too old; run: {_INSTALL}")
    return trt


def installed_modules() -> list[str]:
    """Names of `MODULES` that are installed, found without importing any."""
    return [module for module in MODULES if find_spec(module)]


def module_for(sm: str) -> str:
    """Name of the module that makes and runs plans for a GPU.

    Args:
        sm: Compute capability, such as ``sm90``.

    Raises:
        EngineError: If no module is installed that supports the GPU.
    """
    available = installed_modules()
    if "tensorrt" in available:
        return "tensorrt"
    if not available:
        raise EngineError(f"no TensorRT is installed; run: {_INSTALL}")
    if sm not in (known := rtx_capabilities()):
        raise EngineError(
            f"tensorrt_rtx makes plans for {', '.join(known)}, not for {sm}; run: pip install 'tensorrt>=10.12'"
        )
    return "tensorrt_rtx"


def rtx_capabilities() -> list[str]:
    """Compute capabilities, such as ``sm86``, that TensorRT for RTX makes plans for.

    Raises:
        EngineError: If TensorRT for RTX is not installed.
    """
    trt = tensorrt_module("tensorrt_rtx")
    return [name.lower() for name in trt.ComputeCapability.__members__ if name.startswith("SM")]


def local_target(module: str, gpu: machine.Gpu) -> Target:
    """The target of plans that ``module`` runs on ``gpu``, which is in this machine."""
    version = str(tensorrt_module(module).__version__)
    return Target(module, version, gpu.sm, gpu.name, machine.driver(), machine.cuda_version())


@cache  # the library keeps the first logger that it is given, and ignores others
def module_logger(module: str) -> Any:
    """The module's logger, which passes every message on to Python's `logging`."""
    trt = tensorrt_module(module)
    levels = {
        trt.ILogger.Severity.INTERNAL_ERROR: logging.CRITICAL,
        trt.ILogger.Severity.ERROR: logging.ERROR,
        trt.ILogger.Severity.WARNING: logging.WARNING,
        trt.ILogger.Severity.INFO: logging.INFO,
    }

    class Log(trt.ILogger):  # type: ignore[name-defined,misc]  # the module is known at run time only
        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            level = levels.get(severity, logging.DEBUG)
            if level >= logging.ERROR:
                self.errors.append(" ".join(msg.split()))
            logger.log(level, "%s", msg)

    return Log()


@contextmanager
def logged_errors(module: str) -> Iterator[list[str]]:
    """Messages that the module logs as errors within the context."""
    errors: list[str] = module_logger(module).errors
    errors.clear()
    yield errors
