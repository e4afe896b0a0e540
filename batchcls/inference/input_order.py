"""Rows of predictions in the order of a program's images, whatever order the decoder answers in."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from threading import Condition

import numpy as np
import pyarrow as pa

from batchcls.inference.inputs import is_in_memory, memory_bytes
from batchcls.predictions.rows import PredictionRows
from batchcls.predictions.schema import NOTHING_KEPT, file_schema
from batchcls.records import BatchResult, Failure, Predictions, Slide

_MOST_OPEN = 4096
"""Largest number of images that have been taken and whose rows have not been given, so that memory is bounded."""
_MOST_OPEN_BYTES = 256 << 20
"""Largest size of such images that are in memory; one may be larger."""

_Row = tuple[BatchResult, int] | Failure
"""A result and the position of the image in it, or a failure."""
_Key = tuple[str, str]
"""Root and path of a slide."""


class InputOrder:
    """Takes results in any order, and gives rows in the order in which the slides were taken.

    Args:
        labels: The engine's labels, by position.
        added: Columns of `batchcls.predictions.schema.added_schema`.
    """

    def __init__(self, labels: Sequence[str], added: pa.Schema = NOTHING_KEPT) -> None:
        self._labels, self._added = labels, added
        self._changed = Condition()
        self._closed = False
        self._positions: dict[_Key, deque[int]] = {}
        """Positions of each slide that is open; a slide may be given more than once."""
        self._sizes_bytes: deque[int] = deque()
        """Memory of each image that is open, in order."""
        self._open_bytes = 0
        self._taken = 0
        self._rows: dict[int, _Row] = {}
        """Rows that wait for those before them, by position."""
        self._given = 0

    def taken(self, slides: Iterable[Slide | Failure]) -> Iterator[Slide | Failure]:
        """The same slides, each remembered; waits while too many are open."""
        for slide in slides:
            with self._changed:
                self._changed.wait_for(self._has_room)
                if self._closed:
                    return
                size_bytes = memory_bytes(slide)
                self._sizes_bytes.append(size_bytes)
                self._open_bytes += size_bytes
                self._positions.setdefault(_key(slide), deque()).append(self._taken)
                self._taken += 1
            yield slide

    def fail(self, failure: Failure) -> None:
        """Take an image without a prediction, whose row `add` gives when it is next in order; from any thread."""
        with self._changed:
            self._rows[self._position(_key(failure))] = failure

    def add(self, result: BatchResult) -> pa.RecordBatch | None:
        """The rows that are next in order, once ``result`` is known; None if the next one is still missing."""
        ready: list[_Row] = []
        with self._changed:
            for row, slide in enumerate(result.slides):
                self._rows[self._position(_key(slide))] = (result, row)
            for failure in result.failures:
                self._rows[self._position(_key(failure))] = failure
            while (row_or_failure := self._rows.pop(self._given, None)) is not None:
                ready.append(row_or_failure)
                self._given += 1
                self._open_bytes -= self._sizes_bytes.popleft()
            self._changed.notify_all()
        return self._record_batch(ready) if ready else None

    def check_complete(self) -> None:
        """Raise a RuntimeError if a slide that was taken has no row."""
        if self._given < self._taken:
            raise RuntimeError(
                f"{self._taken} images were given, {self._given} have a row: this is a bug, please report it"
            )

    def close(self) -> None:
        """End `taken`, also where it waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _has_room(self) -> bool:
        is_first = self._taken == self._given
        few = self._taken - self._given < _MOST_OPEN and self._open_bytes < _MOST_OPEN_BYTES
        return self._closed or is_first or few

    def _position(self, key: _Key) -> int:
        positions = self._positions[key]
        position = positions.popleft()
        if not positions:
            del self._positions[key]
        return position

    def _record_batch(self, ready: Sequence[_Row]) -> pa.RecordBatch:
        predicted = [(row, number) for number, row in enumerate(ready) if not isinstance(row, Failure)]
        failed = [(row, number) for number, row in enumerate(ready) if isinstance(row, Failure)]
        result = BatchResult(
            slides=[answer.slides[row] for (answer, row), _ in predicted],
            sizes=[answer.sizes[row] for (answer, row), _ in predicted],
            predictions=_together([row for row, _ in predicted], len(self._labels)),
            failures=[failure for failure, _ in failed],
        )
        order = np.argsort([number for _, number in (*predicted, *failed)])
        slides = [*result.slides, *(failure.slide for failure in result.failures)]
        rows = PredictionRows(tuple(dict.fromkeys(slide.root for slide in slides)), self._labels, self._added)
        table = rows.with_words(pa.Table.from_batches([rows.of(result)])).take(order)
        in_memory = [is_in_memory(slides[number]) for number in order.tolist()]
        return _without_names(table, in_memory).cast(file_schema(len(self._labels), self._added)).to_batches()[0]


def _key(slide: Slide | Failure) -> _Key:
    named = slide.slide if isinstance(slide, Failure) else slide
    return named.root, named.path


def _together(rows: Sequence[tuple[BatchResult, int]], classes: int) -> Predictions:
    """The predictions of rows of several results."""
    if not rows:
        return Predictions(np.empty(0, np.int32), np.empty((0, classes), np.float32), np.empty(0, np.bool_))
    added = rows[0][0].predictions.added
    return Predictions(
        np.array([result.predictions.labels[row] for result, row in rows], np.int32),
        np.stack([result.predictions.probabilities[row] for result, row in rows]),
        np.ones(len(rows), np.bool_),
        {name: np.stack([result.predictions.added[name][row] for result, row in rows]) for name in added},
    )


def _without_names(table: pa.Table, in_memory: Sequence[bool]) -> pa.Table:
    """``table`` with null for root and path of images in memory, which have neither."""
    if not any(in_memory):
        return table
    mask = np.array(in_memory)
    for name in ("root", "path"):
        texts = [None if hidden else text for hidden, text in zip(mask.tolist(), table[name].to_pylist(), strict=True)]
        column = pa.array(texts, pa.string())
        table = table.set_column(table.schema.get_field_index(name), name, column)
    return table
