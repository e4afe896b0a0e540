"""Classify whole folders of slide images, fast and without losing a row."""

import sys

__version__ = "0.1.0"

# OpenVINO and NNCF report each use to Google Analytics, by a package that they do without if it is not there.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: as if not installed
