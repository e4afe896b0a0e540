"""The record of a run in its predictions file, and the identity that runs must share to write one file."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from batchcls import machine
from batchcls.engine.base import EngineInfo
from batchcls.images.sources.base import Source
from batchcls.inference.options import RunOptions
from batchcls.inference.stats import RunStats
from batchcls.predictions.formats.parquet_folder import ROWS_PER_FILE_KEY
from batchcls.predictions.schema import BY_CONTENT, COVERAGE, kept_identity
from batchcls.storage.file_names import printable


def run_identity(source: Source, info: EngineInfo, decoder: str, options: RunOptions) -> dict[str, Any]:
    """The properties that two runs must share to write one predictions file; JSON values."""
    return {
        "slides": [printable(root) for root in source.roots],
        **asdict(info),
        "device": info.device.partition(":")[0],  # rows do not depend on which GPU it is
        "decoder": decoder,
        **({"allow_remote": True} if options.allow_remote else {}),
        **kept_identity(source.kept),
        **({BY_CONTENT: True} if options.by_content else {}),
        **({ROWS_PER_FILE_KEY: options.rows_per_file} if options.rows_per_file else {}),
    }


def run_metadata(
    info: EngineInfo, decoder: str, arguments: Mapping[str, Any], stats: RunStats, started: str
) -> dict[str, Any]:
    """The record of a run, for its predictions file; JSON values.

    Args:
        arguments: The run's slides and options.
        stats: Counts of the whole file, and times up to now.
        started: When the first of the runs that share the file started; UTC, ISO 8601.
    """
    return {
        **engine_metadata(info, decoder),
        "arguments": arguments,
        "counts": {
            "rows": stats.rows,
            "resumed_rows": stats.resumed_rows,
            "labels": stats.labels,
            "errors": stats.errors,
            "skipped": stats.skipped,
            **({"sets": dict(stats.sets)} if stats.coverage is not None else {}),
        },
        **({"novelty": stats.novelty, "drift": stats.drift} if stats.novelty else {}),
        **({COVERAGE: stats.coverage} if stats.coverage is not None else {}),
        "throughput": {
            "files": stats.rows - stats.resumed_rows,
            "elapsed_s": stats.elapsed_s,
            "images_per_s": stats.images_per_s,
            "seconds": stats.seconds,
            "peak_memory_bytes": stats.peak_memory_bytes,
        },
        "unlisted_folders": stats.unlisted,
        "started": started,
        "ended": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }


def engine_metadata(info: EngineInfo, decoder: str) -> dict[str, Any]:
    """The part of a run's record that says what computed its rows; JSON values."""
    engine = asdict(info)
    return {
        "versions": machine.versions(),
        "engine": {key: engine[key] for key in ("name", "onnx_sha256", "checkpoint_sha256", "temperature")},
        **{key: engine[key] for key in ("labels", "preprocess", "precision", "backend", "device")},
        "decoder": decoder,
    }
