"""What a predictions file says of its own making, and what two runs must share to write one."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from batchcls import machine
from batchcls.inference.stats import RunStats
from batchcls.records import EngineInfo
from batchcls.storage.file_names import printable


def identity(roots: Sequence[str], info: EngineInfo, decoder: str) -> dict[str, Any]:
    """What two runs must share for their rows to stand in one file; JSON values."""
    return {
        "slides": [printable(root) for root in roots],
        **asdict(info),
        "device": info.device.partition(":")[0],  # which GPU it is makes no difference
        "decoder": decoder,
    }


def metadata(
    info: EngineInfo, decoder: str, arguments: Mapping[str, Any], tally: RunStats, started: str
) -> dict[str, Any]:
    """How the rows of a whole file were made; JSON values.

    Args:
        arguments: What the run was asked for.
        tally: Of the whole file, but for the time that writing it is going to take.
        started: When the first of the runs that share the file started; UTC, ISO 8601.
    """
    engine = asdict(info)
    return {
        "versions": machine.versions(),
        "engine": {key: engine[key] for key in ("name", "onnx_sha256", "checkpoint_sha256", "temperature")},
        **{key: engine[key] for key in ("labels", "preprocess", "precision", "backend", "device")},
        "decoder": decoder,
        "arguments": arguments,
        "counts": {
            "rows": tally.rows,
            "resumed_rows": tally.resumed_rows,
            "labels": tally.labels,
            "errors": tally.errors,
            "skipped": tally.skipped,
        },
        "throughput": {
            "files": tally.rows - tally.resumed_rows,
            "elapsed_s": tally.elapsed_s,
            "images_per_s": tally.images_per_s,
            "seconds": tally.seconds,
            "peak_memory_bytes": tally.peak_memory_bytes,
        },
        "unlisted_folders": tally.unlisted,
        "started": started,
        "ended": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }
