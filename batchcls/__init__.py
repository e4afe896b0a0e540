"""Classify whole folders of slide images, fast and without losing a row."""

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchcls.api import Engine, run

__all__ = ["Engine", "__version__", "run"]
__version__ = "0.1.0"

# OpenVINO and NNCF report their use to Google Analytics through this package, and work without it.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: as if not installed


def __getattr__(name: str) -> Any:
    """Import the Python API when it is asked for: the command line does without."""
    if name in ("Engine", "run"):
        from batchcls import api

        return getattr(api, name)
    raise AttributeError(f"module 'batchcls' has no attribute {name!r}")
