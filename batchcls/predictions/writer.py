"""Predictions become Parquet: parts while running, one file when whole, resume in between."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from time import monotonic
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchcls.predictions.done_slides import DoneSlides, in_order
from batchcls.predictions.existing import ExistingOutput, worth_again
from batchcls.predictions.rows import PredictionRows, part_schema, schema
from batchcls.records import METADATA_KEY, BatchResult, Slide
from batchcls.storage.file_names import original
from batchcls.storage.partial_folder import clear_left_over
from batchcls.storage.resumable import ResumableOutput

_PART_ROWS = 16_384
_PART_SECONDS = 10.0
"""A kill costs the part that is open: at most so many rows, or what so many seconds decoded."""
_GROUP_ROWS = 32_768


@dataclass(frozen=True, slots=True)
class Counts:
    """What a whole predictions file holds."""

    rows: int
    labels: Mapping[str, int]
    errors: Mapping[str, int]
    """By kind: what stands before the colon."""


def open_writer(
    path: Path,
    *,
    roots: Sequence[str],
    labels: Sequence[str],
    identity: Mapping[str, Any],
    limits: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> "PredictionsWriter | ExistingOutput":
    """Where a run's rows go; or the whole file, where such a run has nothing to do any more.

    A whole file with rows that are worth doing again stays until the new one is whole, which has its other rows.

    Args:
        roots: Every `Slide.root` that may come.
        labels: The engine's, by position.
        identity: What must be the same for two runs to share one file; JSON values.
        limits: What may be otherwise in another run of the same identity, which then does again what it had refused.
        overwrite: Whether an existing ``path`` may be replaced, which happens when the new one is whole.

    Raises:
        OutputError: If ``path`` exists, another run is writing it, or what an earlier run left is of another identity.
    """
    limits, as_json = dict(limits or {}), json.loads(json.dumps(identity))
    standing = None if overwrite else ExistingOutput.of(path, schema(len(labels)), as_json)
    if standing and standing.is_settled(limits):
        clear_left_over(path)
        return standing
    partial = ResumableOutput(path, part_schema(len(labels)), identity, limits=limits)
    try:
        if not overwrite:  # another run may have finished while this one waited for it
            standing = ExistingOutput.of(path, schema(len(labels)), as_json)
        if standing and standing.is_settled(limits) and not partial.begun:
            partial.discard()
            partial.close()
            return standing
        return PredictionsWriter(partial, roots, labels, limits, standing)
    except BaseException:
        partial.close()
        raise


class PredictionsWriter:
    """One run's rows on their way to a file; everything that is done stands in `ResumableOutput` until it is whole.

    Rows may come in any order; the file has them in the order of ``roots`` and then of path.

    Args:
        partial: Given back by `close`.
        roots: As of `open_output`, like ``labels`` and ``limits``.
        standing: The whole file whose other rows are taken over.

    Raises:
        OutputError: If what is there cannot be read, or the disk refuses.
    """

    def __init__(
        self,
        partial: ResumableOutput,
        roots: Sequence[str],
        labels: Sequence[str],
        limits: Mapping[str, Any],
        standing: ExistingOutput | None = None,
    ) -> None:
        self._partial = partial
        self._roots = {root: position for position, root in enumerate(roots)}
        self._labels = tuple(labels)
        self._limits = limits
        self._rows = PredictionRows(roots, labels)
        changed = partial.changed_limits
        partial.drop(lambda rows: worth_again(rows["error"], changed))
        again = self._taken_over(standing) if standing else self._rows.keys.empty_table()
        rows = partial.table().select(self._rows.keys.names)
        self.resumed_rows = len(rows)
        """Rows that an earlier run left."""
        # Done again whether they are listed or not, so that no row is lost.
        self._again = list(DoneSlides(rows, self._roots).missing(self._slides(again))) if len(again) else []
        self._known = DoneSlides(pa.concat_tables([rows, again]), self._roots)
        self._open_rows: list[pa.RecordBatch] = []
        self._opened = monotonic()

    @property
    def started(self) -> str:
        """When the first of the runs that share this output started; UTC, ISO 8601."""
        return self._partial.started

    def missing(self, slides: Iterable[Slide]) -> Iterator[Slide]:
        """Those of ``slides`` that have no row yet, after those that are to be done again."""
        return chain(self._again, self._known.missing(slides))

    def write(self, scored: BatchResult) -> None:
        """Add one row for each file of ``scored``.

        Raises:
            OutputError: If the disk refuses; every part written before stays.
        """
        self._open_rows.append(self._rows.of(scored))
        if sum(len(part) for part in self._open_rows) >= _PART_ROWS:
            self.flush()

    def flush_if_due(self) -> None:
        """Bring the rows to the disk that have waited for some seconds; to be called from time to time."""
        if monotonic() - self._opened >= _PART_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Bring every row so far to the disk."""
        if self._open_rows:
            self._partial.append(self._open_rows)
            self._open_rows = []
        self._opened = monotonic()

    def counts(self) -> Counts:
        """Of all rows, those of earlier runs among them; flushes."""
        self.flush()
        table = self._partial.table()
        kinds = pc.list_element(pc.split_pattern(table["error"].drop_null(), ":", max_splits=1), 0)
        labels = _counted(table["label"].drop_null())
        return Counts(len(table), {self._labels[code]: count for code, count in labels.items()}, _counted(kinds))

    def finish(self, metadata: Mapping[str, Any]) -> None:
        """Put the whole file in its place, with ``metadata`` as JSON under the key ``batchcls``, and drop the parts.

        Raises:
            OutputError: If the disk refuses; the parts stay.
        """
        self.flush()
        said = {**metadata, "identity": self._partial.identity, "limits": self._limits}
        final = schema(len(self._labels)).with_metadata({METADATA_KEY: json.dumps(said)})
        with self._partial.whole() as whole, pq.ParquetWriter(whole, final, compression="zstd") as writer:
            for rows in in_order(self._partial.table(), _GROUP_ROWS):
                writer.write_table(self._rows.with_words(rows).cast(final), row_group_size=_GROUP_ROWS)
        self._partial.finish()

    def discard(self) -> None:
        """Forget everything that is not in its place yet."""
        self._partial.discard()

    def close(self) -> None:
        """Let another run have the output; what is done stays."""
        self._partial.close()

    def _taken_over(self, standing: ExistingOutput) -> pa.Table:
        """Make the good rows of ``standing`` the first part; root and path of those that may have to be done again."""
        changed = standing.other_limits(self._limits)
        if not self._partial.begun:
            batches = map(self._rows.of_whole, standing.batches())
            self._partial.append(batch.filter(pc.invert(worth_again(batch["error"], changed))) for batch in batches)
        batches = map(self._rows.of_whole, standing.batches(["root", "path", "error"]))
        again = [batch.filter(worth_again(batch["error"], self._limits.keys())) for batch in batches]
        return pa.concat_tables(
            [self._rows.keys.empty_table(), pa.Table.from_batches(again).select(self._rows.keys.names)]
        )

    def _slides(self, rows: pa.Table) -> Iterator[Slide]:
        roots = list(self._roots)
        for row in rows.to_pylist():
            yield Slide(roots[row["root"]], original(row["path"]))


def _counted(values: pa.ChunkedArray) -> dict[Any, int]:
    return Counter({item["values"]: item["counts"] for item in pc.value_counts(values).to_pylist()})
