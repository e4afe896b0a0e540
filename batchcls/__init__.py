"""Classify whole folders of slide images, fast and without losing a row."""

import sys

__version__ = "0.1.0"

# OpenVINO and NNCF report their use to Google Analytics through this package, and work without it.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: as if not installed
