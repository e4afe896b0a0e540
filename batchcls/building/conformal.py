"""Put conformal thresholds, which an evaluation has fitted, into the engine whose answers it has evaluated."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from batchcls.engine.conformal import ConformalThresholds
from batchcls.engine.manifest import Manifest
from batchcls.errors import EngineError, OutputError
from batchcls.storage.regular_file import read_json

_LARGEST_METRICS_BYTES = 64 << 20


def store_thresholds(folder: Path, metrics: Path) -> ConformalThresholds:
    """Write the conformal thresholds of an evaluation into engine.json, in place of earlier ones.

    Args:
        folder: Engine folder.
        metrics: metrics.json of `batchcls evaluate`.

    Raises:
        EngineError: If ``folder`` is no engine, ``metrics`` is no file of an evaluation or holds no thresholds, or
            another engine was evaluated.
        OutputError: If engine.json cannot be written.
    """
    manifest = Manifest.read(folder)
    try:
        values = read_json(metrics, _LARGEST_METRICS_BYTES)
        _check_engine(values, manifest)
        thresholds = ConformalThresholds.from_values(_fitted(values), manifest.labels)
    except (OSError, ValueError) as error:
        raise EngineError(
            f"{str(metrics)!r} gives engine {str(folder)!r} no sets of labels: {error}; evaluate its own predictions: "
            "batchcls evaluate PREDICTIONS --truth TRUTH --out REPORT"
        ) from error
    try:
        replace(manifest, conformal=thresholds).write(folder)
    except OSError as error:
        raise OutputError(
            f"cannot write to engine {str(folder)!r}: {error.strerror or error}; copy the folder to a place that can "
            "be written to"
        ) from error
    return thresholds


def _check_engine(values: Any, manifest: Manifest) -> None:
    """Refuse metrics of another network, temperature or labels.

    Raises:
        ValueError: If the evaluated engine is another one, or not recorded.
    """
    if _item(values, "predictions") is None:
        raise ValueError("it is no metrics.json of an evaluation")
    record = _item(values, "predictions", "metadata")
    digest = _item(record, "engine", "onnx_sha256")
    if not isinstance(digest, str):
        raise ValueError("its predictions no longer say which engine made them")
    if digest != manifest.onnx_sha256:
        raise ValueError(
            f"it is of engine {str(_item(record, 'engine', 'name'))[:80]!r}, whose model.onnx has SHA-256 "
            f"{digest[:12]}; this one's has {manifest.onnx_sha256[:12]}"
        )
    temperature = _item(record, "engine", "temperature")
    if type(temperature) not in (int, float) or temperature != manifest.temperature:
        raise ValueError(f"it is of a temperature of {str(temperature)[:20]}, this one has {manifest.temperature:g}")
    if _item(record, "labels") != list(manifest.labels):
        raise ValueError("it is of other labels, or of labels in another order")


def _fitted(values: dict[str, Any]) -> Any:
    """The evaluation's thresholds.

    Raises:
        ValueError: If it has none.
    """
    if "conformal" not in values:
        raise ValueError("it was written by an older batchcls, which fitted no thresholds")
    if values["conformal"] is None:
        raise ValueError("an engine of one class has none")
    return values["conformal"]


def _item(values: Any, *keys: str) -> Any:
    """The value that ``keys`` lead to in nested JSON objects; None if there is none."""
    for key in keys:
        values = values.get(key) if isinstance(values, dict) else None
    return values
