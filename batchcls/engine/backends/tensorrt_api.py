"""TensorRT's Python modules, which share one API: which is there for a GPU, and what they have to say."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from batchcls import machine
from batchcls.engine.sidecar import Target
from batchcls.errors import EngineError

MODULES = ("tensorrt", "tensorrt_rtx")
"""In order of preference. `tensorrt`, 10.12 or later, knows every GPU and tunes its plans on it; `tensorrt_rtx`
knows GeForce and RTX cards only, and needs none to make a plan."""
_INSTALL = "pip install 'tensorrt>=10.12', or for GeForce and RTX cards: pip install 'tensorrt-rtx>=1.4'"

_OLDEST = {"tensorrt": (10, 12), "tensorrt_rtx": (1, 4)}

logger = logging.getLogger("batchcls.tensorrt")
logger.addHandler(logging.NullHandler())  # what matters of it is in our errors; the rest is for who asks for it


def api(module: str) -> Any:
    """The module, imported.

    Raises:
        EngineError: If it is not installed, is too old, or its library cannot be loaded.
    """
    try:
        trt = import_module(module)
    except (ImportError, OSError) as error:
        raise EngineError(f"{module} was asked for and cannot be loaded: {error}; run: {_INSTALL}") from error
    if tuple(map(int, trt.__version__.split(".")[:2])) < _OLDEST[module]:
        raise EngineError(f"{module} {trt.__version__} is too old; run: {_INSTALL}")
    return trt


def installed() -> list[str]:
    """Those of `MODULES` that are installed; nothing is imported for it."""
    return [module for module in MODULES if find_spec(module)]


def module_for(sm: str) -> str:
    """The module that makes and runs plans for GPUs of compute capability ``sm``, such as ``sm90``.

    Raises:
        EngineError: If none is installed that knows it.
    """
    there = installed()
    if "tensorrt" in there:
        return "tensorrt"
    if not there:
        raise EngineError(f"no TensorRT is installed; run: {_INSTALL}")
    if sm not in (known := rtx_capabilities()):
        raise EngineError(
            f"tensorrt_rtx makes plans for {', '.join(known)}, not for {sm}; run: pip install 'tensorrt>=10.12'"
        )
    return "tensorrt_rtx"


def rtx_capabilities() -> list[str]:
    """Compute capabilities that TensorRT for RTX makes plans for, as ``sm86``; it must be installed."""
    trt = api("tensorrt_rtx")
    return [name.lower() for name in trt.ComputeCapability.__members__ if name.startswith("SM")]


def here(module: str, gpu: machine.Gpu) -> Target:
    """What plans of ``module`` have to be made for to run on ``gpu``."""
    version = str(api(module).__version__)
    return Target(module, version, gpu.sm, gpu.name, machine.driver(), machine.cuda_version())


@cache  # the library keeps the first logger that it is given, and ignores any other
def log(module: str) -> Any:
    """The module's logger, which hands everything on to Python's `logging`."""
    trt = api(module)
    levels = {
        trt.ILogger.Severity.INTERNAL_ERROR: logging.CRITICAL,
        trt.ILogger.Severity.ERROR: logging.ERROR,
        trt.ILogger.Severity.WARNING: logging.WARNING,
        trt.ILogger.Severity.INFO: logging.INFO,
    }

    class Log(trt.ILogger):  # type: ignore[name-defined,misc]  # the module is known when it runs
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
def errors_of(module: str) -> Iterator[list[str]]:
    """What the module logs as errors meanwhile."""
    errors: list[str] = log(module).errors
    errors.clear()
    yield errors
