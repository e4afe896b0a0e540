"""Write predictions to one file; until it is whole, parts on disk hold the finished rows."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from batchcls.predictions.counts import Counts, count_columns, count_rows
from batchcls.predictions.done_slides import DoneSlides
from batchcls.predictions.existing_output import ExistingOutput, check_record_beside, retry_mask
from batchcls.predictions.external_sort import sorted_tables
from batchcls.predictions.formats import format_to_write, parquet_folder
from batchcls.predictions.formats.parquet_folder import rows_of_each_file
from batchcls.predictions.row_key import KEY_COLUMNS as KEY_COLUMNS
from batchcls.predictions.row_key import key_schema, slides_of
from batchcls.predictions.rows import PredictionRows
from batchcls.predictions.schema import added_schema, file_schema, kept_schema, part_schema
from batchcls.records import BatchResult, Slide
from batchcls.storage.output_folder import clear_leftovers
from batchcls.storage.resumable_output import ResumableOutput

UPDATE_KEY = "update_of"
"""Key of the identity of an unfinished update, which says of which whole file it is one."""
_PART_ROWS = 16_384
"""Most rows that a kill can cost."""
_PART_SECONDS = 10.0
"""Seconds after which rows are brought to disk, however few they are."""
GROUP_ROWS = 32_768
"""Rows in a row group of the whole file."""


def open_writer(
    path: Path | str,
    *,
    roots: Sequence[str],
    labels: Sequence[str],
    identity: Mapping[str, Any],
    limits: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> "PredictionsWriter | ExistingOutput":
    """The writer of a run's rows; or the whole file, where a run of this identity has nothing left to do.

    A whole file with rows that are worth doing again stays in its place until the new file, which takes over its other
    rows, is whole.

    Args:
        path: The predictions file or folder, or its URL in an object store, whose ending names its format.
        roots: Every `Slide.root` of the run.
        labels: The engine's labels, by position.
        identity: Properties that two runs must share to write one file; JSON values.
        limits: Options that may differ between runs of one identity: a run with other limits repeats refused files.
        overwrite: Whether an existing ``path`` is replaced, which happens when the new file is whole.

    Raises:
        OutputError: If ``path`` has another ending, ``path`` exists, another run is writing it, or an earlier run of
            another identity began it.
    """
    limits, identity_json = dict(limits or {}), json.loads(json.dumps(identity))
    form, is_folder = format_to_write(path, rows_of_each_file(identity_json)), bool(rows_of_each_file(identity_json))
    if form.RECORD_IS_BESIDE:
        clear_leftovers(path)  # a killed run may have moved one of its two files to its place
        if not overwrite:
            check_record_beside(path)
    added = added_schema(identity_json)
    columns = file_schema(len(labels), added)
    if is_folder and overwrite:
        parquet_folder.check_replaceable(Path(path))
    existing = None if overwrite else ExistingOutput.of(path, columns, identity_json)
    if existing and existing.is_settled(limits):
        clear_leftovers(path)
        return existing
    partial = ResumableOutput(path, part_schema(len(labels), added), identity, limits=limits, is_folder=is_folder)
    try:
        if not overwrite:  # another run may have finished while this one waited for it
            existing = ExistingOutput.of(path, columns, identity_json)
        if existing and existing.is_settled(limits) and not partial.begun:
            partial.discard()
            partial.close()
            return existing
        return PredictionsWriter(partial, roots, labels, limits, existing)
    except BaseException:
        partial.close()
        raise


class PredictionsWriter:
    """Brings one run's rows to a predictions file; until the file is whole, `ResumableOutput` holds the rows.

    Rows may come in any order; the whole file has them in the order of ``roots``, and by path within a root.

    Args:
        partial: Where rows are kept until the file is whole; closed by `close`.
        roots: Every `Slide.root` of the run.
        labels: The engine's labels, by position.
        limits: The run's limits, as `open_writer` takes them.
        existing: A whole file whose rows are taken over, but for those worth doing again.

    Raises:
        OutputError: If the rows of earlier runs cannot be read, or the disk refuses.
    """

    def __init__(
        self,
        partial: ResumableOutput,
        roots: Sequence[str],
        labels: Sequence[str],
        limits: Mapping[str, Any],
        existing: ExistingOutput | None = None,
    ) -> None:
        self._partial = partial
        self._rows_per_file = rows_of_each_file(partial.identity)
        self._format = format_to_write(partial.path, self._rows_per_file)
        positions = {root: position for position, root in enumerate(roots)}
        self._labels = tuple(labels)
        self._limits = limits
        kept = kept_schema(partial.identity)
        self._rows = PredictionRows(roots, labels, added_schema(partial.identity))
        self._keys = key_schema(self._rows.schema)
        partial.drop(lambda rows: retry_mask(rows["error"], partial.changed_limits))
        repeated = self._take_over(existing, kept.names) if existing else self._keys.empty_table()
        self._known = DoneSlides(partial.batches(self._keys.names), positions)
        self.resumed_rows = len(self._known)
        """Rows that an earlier run left."""
        # Repeated slides are classified whether they are listed or not, so that no row is lost.
        self._repeated = list(self._known.missing(slides_of(repeated, roots, kept.names)))
        self._open_rows: list[pa.RecordBatch] = []
        self._open_count = 0
        self._opened = monotonic()

    @property
    def started(self) -> str:
        """When the first of the runs that share this output started; UTC, ISO 8601."""
        return self._partial.started

    def missing(self, slides: Iterable[Slide]) -> Iterator[Slide]:
        """The slides to classify: of ``slides`` those without a row, or with one that is worth doing again.

        Slides with such a row that are not among ``slides`` come last.
        """
        unlisted = {(slide.root, slide.path): slide for slide in self._repeated}
        for slide in self._known.missing(slides):
            unlisted.pop((slide.root, slide.path), None)  # what its source says of it now is what counts
            yield slide
        yield from unlisted.values()

    def write(self, result: BatchResult) -> None:
        """Add one row for each file of ``result``.

        Raises:
            OutputError: If the disk refuses; every part written before stays.
        """
        rows = self._rows.of(result)
        self._open_rows.append(rows)
        self._open_count += len(rows)
        if self._open_count >= _PART_ROWS:
            self.flush()

    def flush_if_due(self) -> None:
        """Bring rows to the disk that have waited for ten seconds; to be called several times a second."""
        if monotonic() - self._opened >= _PART_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Bring every row so far to the disk."""
        if self._open_rows:
            self._partial.append([pa.concat_batches(self._open_rows)])
            self._open_rows, self._open_count = [], 0
        self._opened = monotonic()

    def counts(self) -> Counts:
        """The counts over all rows, those of earlier runs included; every row is on disk afterwards."""
        self.flush()
        return count_rows(self._partial.batches(count_columns(self._rows.schema)), self._labels)

    def rows(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Some columns of all rows, those of earlier runs included, as rows of parts; every row is on disk then."""
        self.flush()
        return self._partial.batches(columns)

    def finish(self, metadata: Mapping[str, Any]) -> None:
        """Put the whole file in its place, with ``metadata`` as the record of the run, and drop the parts.

        Raises:
            OutputError: If the disk refuses; the parts stay.
        """
        self.flush()
        identity = {key: value for key, value in self._partial.identity.items() if key != UPDATE_KEY}
        record = {**metadata, "identity": identity, "limits": self._limits}
        most = self._rows_per_file
        length = GROUP_ROWS if most is None else -(-most // -(-most // GROUP_ROWS))  # so that groups fill each file
        parts = self._partial.batches()
        rows = map(self._rows.with_words, sorted_tables(parts, self._rows.schema, self._partial.scratch, length))
        if most is None:
            with self._partial.whole() as stream:
                beside = self._format.write(stream, rows, self._labels, record)
            if beside is not None:
                self._partial.write_beside(beside)
        else:
            with self._partial.whole_files() as folder:
                parquet_folder.write(folder, rows, self._labels, record, most)
        self._partial.finish()

    def discard(self) -> None:
        """Drop every part, and write no file."""
        self._partial.discard()

    def close(self) -> None:
        """Let another run write to the output; the parts stay."""
        self._partial.close()

    def _take_over(self, existing: ExistingOutput, kept: Sequence[str]) -> pa.Table:
        """Make the good rows of ``existing`` the first part.

        Returns:
            The keys, and the ``kept`` columns, of the rows that are worth doing again, under this run's limits or
            others.
        """
        changed = existing.other_limits(self._limits)
        if not self._partial.begun:
            batches = map(self._rows.of_whole, existing.batches(self._rows.schema.names))
            self._partial.append(batch.filter(pc.invert(retry_mask(batch["error"], changed))) for batch in batches)
        columns = [*KEY_COLUMNS, *kept]
        batches = map(self._rows.of_whole, existing.batches([*columns, "error"]))
        repeated = [batch.filter(retry_mask(batch["error"], self._limits.keys())) for batch in batches]
        schema = pa.schema([self._rows.schema.field(name) for name in columns])
        return pa.concat_tables([schema.empty_table(), pa.Table.from_batches(repeated).select(columns)])
