"""Results as bytes on their way between machines, in pieces of a bounded size."""

import pickle
from collections.abc import Iterator
from dataclasses import replace
from typing import cast

from batchcls.inference.worker import PackedResult
from batchcls.records import BatchResult


def pickled_pieces(result: BatchResult, most_bytes: int) -> Iterator[bytes]:
    """``result`` in pieces of up to ``most_bytes``, or of a single row if that is larger."""
    data = pickle.dumps(PackedResult.of(result), protocol=pickle.HIGHEST_PROTOCOL)
    if len(data) <= most_bytes or result.files + len(result.postponed) <= 1:
        yield data
        return
    for half in _halves(result):
        yield from pickled_pieces(half, most_bytes)


def unpickled(piece: bytes) -> BatchResult:
    """The part of a result that a piece holds; pieces must come from this program's own processes."""
    return cast(PackedResult, pickle.loads(piece)).unpacked()  # noqa: S301  # of our own actors


def _halves(result: BatchResult) -> Iterator[BatchResult]:
    """Two results with half of the rows each; predictions come first, then failures, then postponed files."""
    middle = (result.files + len(result.postponed)) // 2
    rows = min(middle, len(result.slides))
    failures = min(middle - rows, len(result.failures))
    postponed = middle - rows - failures
    yield _part(result, slice(rows), slice(failures), slice(postponed))
    second = _part(result, slice(rows, None), slice(failures, None), slice(postponed, None))
    yield replace(second, seconds={})


def _part(result: BatchResult, rows: slice, failures: slice, postponed: slice) -> BatchResult:
    return BatchResult(
        result.slides[rows],
        result.sizes[rows],
        result.predictions.rows(rows),
        result.failures[failures],
        result.postponed[postponed],
        result.seconds,
    )
