"""Signs that a predictions file is no longer what `batchcls run` wrote."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from batchcls.storage.file_set import numbered_files


def predictions_digest(path: Path) -> str:
    """SHA-256 of a predictions file, or of the files of a predictions folder, one after another.

    Raises:
        OSError: If it cannot be read.
    """
    digest = hashlib.sha256()
    for file in numbered_files(path) if path.is_dir() else [path]:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def rewrite_notes(metadata: Mapping[str, Any], labels: Sequence[str], rows: int) -> list[str]:
    """Sentences on how a predictions file differs from what `batchcls run` wrote; none if no difference shows.

    Args:
        metadata: The run's record in the file; empty where another program left the record out.
        labels: Labels in the order of the probabilities.
        rows: Number of rows in the file now.
    """
    if not metadata:
        return [
            "The predictions were written again by another program: what batchcls run recorded of the engine and of "
            f"its rows is gone, and some may be missing. The order of the labels is {', '.join(labels)}."
        ]
    counts = metadata.get("counts")
    written = counts.get("rows") if isinstance(counts, dict) else None
    if isinstance(written, int) and written != rows:
        return [f"The predictions are {rows:,} rows, where batchcls run wrote {written:,}: figures are of these alone."]
    return []
