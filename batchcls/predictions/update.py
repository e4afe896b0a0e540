"""Bring a whole predictions file up to date: which slides are new or changed, and which rows are kept."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from batchcls.predictions.comparison import Comparison, UpdateCounts, UpdateOptions
from batchcls.predictions.existing_output import ExistingOutput
from batchcls.predictions.known_rows import STATE_COLUMNS, KnownRows, RowIndex
from batchcls.predictions.row_key import KEY_COLUMNS, key_schema, row_digests, slide_digests
from batchcls.predictions.rows import PredictionRows
from batchcls.predictions.schema import BY_CONTENT, DIGEST, kept_schema
from batchcls.records import Slide
from batchcls.storage.resumable_output import ResumableOutput

_LOOKUP_SLIDES = 2048


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
        kept = kept_schema(partial.identity).names
        columns = [name for name in (*KEY_COLUMNS, *STATE_COLUMNS, DIGEST, *kept) if name in rows.schema.names]
        self._known = KnownRows(self._batches(columns), existing.other_limits(limits), kept)
        partial.drop(lambda rows: pa.array(self._known.are_unchanged(rows)))  # a killed update had kept them already
        self._resumed = RowIndex(row_digests(partial.batches(self._keys)))
        self._listed_roots: set[int] = set()
        self.counts = UpdateCounts()
        """Counts of the new file; complete after `keep_rows`."""
        self._comparison = Comparison(self._known, options, self.counts)

    @property
    def resumed_rows(self) -> int:
        """Number of rows that an earlier, interrupted update left."""
        return len(self._resumed)

    @property
    def kept(self) -> int:
        """Number of slides so far whose rows are kept."""
        return self._comparison.kept

    @property
    def history(self) -> dict[str, Any]:
        """Part of the new file's record: when the file was begun, and the times that it has been updated."""
        record = self.existing.metadata
        updates = record.get("updates")
        return {
            "started": record.get("started"),
            "updates": updates + 1 if isinstance(updates, int) else 1,
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
                yield from self._comparison.changed(compared)

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
        new, is_replaced = self._written()
        is_gone = ~(self._known.index.seen | is_replaced)
        is_pruned = is_gone & self._of_listed_roots() if prunes and is_gone.any() else np.zeros_like(is_gone)
        self._count(new, is_replaced, is_gone, is_pruned)
        has_other_rows = new or self.counts.changed or self.counts.pruned
        if not has_other_rows and list(unlisted) == self.existing.metadata.get("unlisted_folders", []):
            return False
        self._append(~(is_replaced | is_pruned))
        return True

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

    def _written(self) -> tuple[int, npt.NDArray[np.bool_]]:
        """The number of new rows in the parts, and (rows,) whether a part holds another row of the same slide."""
        new, is_replaced = 0, np.zeros(len(self._known), np.bool_)
        for batch in self._partial.batches(self._keys):
            rows = self._known.index.rows(row_digests([batch]))
            new += int((rows < 0).sum())
            is_replaced[rows[rows >= 0]] = True
        return new, is_replaced

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
        has_digests = BY_CONTENT in self.existing.metadata["identity"]
        there = [name for name in columns if name != DIGEST or has_digests]
        for batch in map(self._rows.of_whole, self.existing.batches(there)):
            if there != list(columns):
                nulls = pa.nulls(len(batch), pa.string())
                arrays = [batch[name] if name in there else nulls for name in columns]
                yield pa.RecordBatch.from_arrays(arrays, names=list(columns))
            else:
                yield batch
