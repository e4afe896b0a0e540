"""Bring a whole predictions file up to date: which slides are new or changed, and which rows are kept."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from batchcls.predictions.existing_output import ExistingOutput
from batchcls.predictions.known_rows import STATE_COLUMNS, UNKNOWN, KnownRows, RowIndex
from batchcls.predictions.row_key import KEY_COLUMNS, key_schema, row_digests, slide_digests
from batchcls.predictions.rows import PredictionRows
from batchcls.records import Failure, Slide
from batchcls.storage.resumable_output import ResumableOutput
from batchcls.storage.transient_errors import is_transient

_LOOKUP_SLIDES = 2048


@dataclass(frozen=True, slots=True)
class UpdateOptions:
    """How a whole predictions file is brought up to date."""

    look_up: Callable[[Sequence[Slide]], Sequence[Slide | Failure]]
    """Returns slides with the size and time of change that their files have now, or the failure of determining them."""
    prune: bool = False
    """Whether the rows of files that are gone are dropped."""


@dataclass(slots=True)
class UpdateCounts:
    """Number of rows of an updated file, by what became of them."""

    new: int = 0
    """Rows of files that had none."""
    changed: int = 0
    """Rows of files that were classified again."""
    unchanged: int = 0
    """Rows that were kept, of files that were listed."""
    gone: int = 0
    """Rows of files that were not listed."""
    pruned: int = 0
    """Rows among `gone` that were dropped."""
    unanswered: int = 0
    """Rows among `unchanged` that were kept because the state of their files could not be determined."""


class UpdatedRows:
    """The rows of a whole file, and what becomes of each one in the new file.

    Args:
        existing: The whole file.
        partial: Where the rows of new and changed slides are written, until the new file is whole.
        rows: Converts rows of the whole file.
        roots: Every `Slide.root` of the run.
        options: How to update.
        limits: The run's limits, as `batchcls.predictions.writer.open_writer` takes them.

    Raises:
        OutputError: If the whole file, or the rows of an earlier run, cannot be read.
    """

    def __init__(
        self,
        existing: ExistingOutput,
        partial: ResumableOutput,
        rows: PredictionRows,
        roots: Sequence[str],
        options: UpdateOptions,
        limits: Mapping[str, Any],
    ) -> None:
        self.existing = existing
        """The whole file as it is until the new one is whole."""
        self.options = options
        self._partial, self._rows = partial, rows
        self._roots = {root: position for position, root in enumerate(roots)}
        self._keys = key_schema(rows.schema).names
        self._known = KnownRows(self._batches([*KEY_COLUMNS, *STATE_COLUMNS]), existing.other_limits(limits))
        partial.drop(lambda rows: pa.array(self._known.are_unchanged(rows)))  # a killed update had kept them already
        self._resumed = RowIndex(row_digests(partial.batches(self._keys)))
        self._listed_roots: set[int] = set()
        self.counts = UpdateCounts()
        """Counts of the new file; complete after `keep_rows`."""
        self.kept = 0
        """Number of slides so far whose rows are kept."""

    @property
    def resumed_rows(self) -> int:
        """Number of rows that an earlier, interrupted update left."""
        return len(self._resumed)

    @property
    def history(self) -> dict[str, Any]:
        """Part of the new file's record: when the file was begun, and the times that it has been updated."""
        record = self.existing.metadata
        return {
            "started": record.get("started"),
            "updates": int(record.get("updates", 0)) + 1,
            "update_started": self._partial.started,
        }

    def missing(self, slides: Iterable[Slide]) -> Iterator[Slide]:
        """The slides to classify: those without a row, and those whose files are others than their rows say."""
        slides = iter(slides)
        while chunk := list(islice(slides, _LOOKUP_SLIDES)):
            digests = slide_digests(chunk, self._roots)
            is_done = self._resumed.see(digests) >= 0
            rows = self._known.index.see(digests)
            self._listed_roots.update(self._roots[slide.root] for slide in chunk)
            compared: list[tuple[Slide, int]] = []
            for slide, row, done in zip(chunk, rows.tolist(), is_done.tolist(), strict=True):
                if row >= 0 and not done:
                    compared.append((slide, row))
                elif not done:
                    yield slide
            if compared:
                yield from self._changed(compared)

    def keep_rows(self, unlisted: Sequence[str]) -> bool:
        """Bring the rows that are kept to the parts; every other row has to be there before.

        Args:
            unlisted: Folders that could not be listed; no row is dropped if there are any.

        Returns:
            Whether the new file differs from the whole one.
        """
        prunes = self.options.prune and not unlisted
        if prunes and not self._resumed.seen.all():
            self._partial.drop(lambda rows: pa.array(self._are_gone(self._resumed, rows)))
        written = self._known.index.rows(row_digests(self._partial.batches(self._keys)))
        is_replaced = np.zeros(len(self._known), np.bool_)
        is_replaced[written[written >= 0]] = True
        is_gone = ~(self._known.index.seen | is_replaced)
        is_pruned = is_gone & self._of_listed_roots() if prunes and is_gone.any() else np.zeros_like(is_gone)
        self._count(int((written < 0).sum()), is_replaced, is_gone, is_pruned)
        if not len(written) and not self.counts.pruned and list(unlisted) == self.existing.metadata["unlisted_folders"]:
            return False
        self._append(~(is_replaced | is_pruned))
        return True

    def _changed(self, compared: Sequence[tuple[Slide, int]]) -> Iterator[Slide]:
        """The slides that are others than their rows say."""
        states = self.options.look_up([slide for slide, _ in compared])
        for (slide, row), state in zip(compared, states, strict=True):
            if isinstance(state, Failure) and is_transient(state.text):
                self.counts.unanswered += 1
                self.kept += 1
            elif self._known.repeated[row] or self._differs(state, row):
                yield slide
            else:
                self.kept += 1

    def _differs(self, state: Slide | Failure, row: int) -> bool:
        size, time = int(self._known.sizes[row]), int(self._known.times[row])
        if isinstance(state, Failure):  # a row without a size says that it could not be opened either
            return size != UNKNOWN or not self._known.failed[row]
        if state.size_bytes is None or state.size_bytes != size:
            return True
        return state.modified_ns is not None and state.modified_ns // 1000 != time

    def _count(
        self,
        new: int,
        is_replaced: npt.NDArray[np.bool_],
        is_gone: npt.NDArray[np.bool_],
        is_pruned: npt.NDArray[np.bool_],
    ) -> None:
        counts = self.counts
        counts.new, counts.changed = new, int(is_replaced.sum())
        counts.gone, counts.pruned = int(is_gone.sum()), int(is_pruned.sum())
        counts.unchanged = len(is_gone) - counts.changed - counts.gone

    def _of_listed_roots(self) -> npt.NDArray[np.bool_]:
        """(rows,) whether the row's root holds any slide; the disk of one that holds none may not be there today."""
        masks = [self._are_listed(batch) for batch in self._batches(["root"])]
        return np.concatenate([np.zeros(0, np.bool_), *masks])

    def _are_listed(self, rows: pa.RecordBatch) -> npt.NDArray[np.bool_]:
        return np.asarray(np.isin(rows["root"].to_numpy(), list(self._listed_roots)))

    def _are_gone(self, index: RowIndex, rows: pa.RecordBatch) -> npt.NDArray[np.bool_]:
        places = index.rows(row_digests([rows]))
        return (places >= 0) & ~index.seen[places] & self._are_listed(rows)

    def _append(self, is_kept: npt.NDArray[np.bool_]) -> None:
        """Bring the rows of the whole file that are kept to the disk, as one part."""

        def kept() -> Iterator[pa.RecordBatch]:
            start = 0
            for batch in self._batches(self._rows.schema.names):
                yield batch.filter(pa.array(is_kept[start : start + len(batch)]))
                start += len(batch)

        self._partial.append(kept())

    def _batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        return map(self._rows.of_whole, self.existing.batches(columns))
