"""Signs that a predictions file is no longer what `batchcls run` wrote."""

from collections.abc import Mapping, Sequence
from typing import Any


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
