"""Predictions become Parquet: parts while running, one file when whole, resume in between."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchcls.errors import OutputError
from batchcls.file_names import printable
from batchcls.partial import Partial
from batchcls.records import METADATA_KEY, Scored, Slide

_PART_ROWS = 16_384
_PART_SECONDS = 10.0
"""A kill costs the part that is open: at most so many rows, or what so many seconds decoded."""
_GROUP_ROWS = 32_768
_LOOKUP_SLIDES = 1024


def schema(classes: int) -> pa.Schema:
    """The columns of a predictions file, for an engine of so many classes."""
    return pa.schema(
        [
            ("root", pa.dictionary(pa.int32(), pa.string())),
            ("path", pa.string()),
            ("label", pa.dictionary(pa.int32(), pa.string())),
            ("probability", pa.float32()),
            ("probabilities", pa.list_(pa.float32(), classes)),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("error", pa.string()),
        ]
    )


@dataclass(frozen=True, slots=True)
class Counts:
    """What a whole predictions file holds."""

    rows: int
    labels: Mapping[str, int]
    errors: Mapping[str, int]
    """By kind: what stands before the colon."""


class ParquetOutput:
    """One run's rows on their way to ``path``; everything that is done stands in ``path``.partial until it is whole.

    Rows may come in any order; the file has them in the order of ``roots`` and then of path.

    Args:
        roots: Every `Slide.root` that may come.
        labels: The engine's, by position.
        identity: What must be the same for two runs to share one file; JSON values.
        overwrite: Whether an existing ``path`` may be replaced, which happens when the new one is whole.

    Raises:
        OutputError: If ``path`` exists, another run is writing it, or what an earlier run left is of another identity.
    """

    def __init__(
        self,
        path: Path,
        *,
        roots: Sequence[str],
        labels: Sequence[str],
        identity: Mapping[str, Any],
        overwrite: bool = False,
    ) -> None:
        if os.path.exists(path) and not overwrite:
            raise OutputError(f"{str(path)!r} exists; choose another --out, or replace it with --overwrite")
        self._roots = {root: position for position, root in enumerate(roots)}
        self._labels = tuple(labels)
        # Parts hold root and label as positions in lists that the whole run shares.
        final = schema(len(labels))
        codes = [field.with_type(pa.int32()) if pa.types.is_dictionary(field.type) else field for field in final]
        self._part_schema = pa.schema(codes)
        self._partial = Partial(path, self._part_schema, identity)
        self._open_rows: list[pa.RecordBatch] = []
        self._opened = monotonic()
        try:
            self._done = self._digests()
        except OutputError:
            self.close()
            raise

    @property
    def started(self) -> str:
        """When the first of the runs that share this output started; UTC, ISO 8601."""
        return self._partial.started

    @property
    def resumed_rows(self) -> int:
        """Rows that an earlier run left."""
        return len(self._done)

    def missing(self, slides: Iterable[Slide]) -> Iterator[Slide]:
        """Those of ``slides`` that have no row yet."""
        slides = iter(slides)
        if not len(self._done):
            yield from slides
        while chunk := list(islice(slides, _LOOKUP_SLIDES)):
            wanted = np.array([_digest(self._roots[slide.root], printable(slide.path)) for slide in chunk], "V16")
            places = np.searchsorted(self._done.view("S16"), wanted.view("S16")).clip(max=len(self._done) - 1)
            known = self._done[places] == wanted
            yield from (slide for slide, is_known in zip(chunk, known, strict=True) if not is_known)

    def write(self, scored: Scored) -> None:
        """Add one row for each file of ``scored``.

        Raises:
            OutputError: If the disk refuses; every part written before stays.
        """
        self._open_rows.append(self._rows(scored))
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
        table = self._partial.table()
        order = pc.sort_indices(table, [("root", "ascending"), ("path", "ascending")])
        final = schema(len(self._labels)).with_metadata({METADATA_KEY: json.dumps(metadata)})
        with (
            self._partial.refusals(),
            self._partial.whole.open("wb") as whole,
            pq.ParquetWriter(whole, final, compression="zstd") as writer,
        ):
            for start in range(0, len(table), _GROUP_ROWS):
                rows = table.take(order[start : start + _GROUP_ROWS])
                writer.write_table(self._decoded(rows).cast(final), row_group_size=_GROUP_ROWS)
        self._partial.finish()

    def discard(self) -> None:
        """Forget everything that is not in its place yet."""
        self._partial.discard()

    def close(self) -> None:
        """Let another run have the output; what is done stays."""
        self._partial.close()

    def _digests(self) -> npt.NDArray[np.void]:
        """One for each row that is done, sorted."""
        table = self._partial.table().select(["root", "path"])
        columns = ((column.to_pylist() for column in batch.columns) for batch in table.to_batches())
        rows = (row for root_and_path in columns for row in zip(*root_and_path, strict=True))
        return np.sort(np.fromiter((_digest(*row) for row in rows), "S16", count=len(table))).view("V16")

    def _rows(self, scored: Scored) -> pa.RecordBatch:
        predictions = scored.predictions
        decoded, failed = len(scored.slides), len(scored.failures)
        slides = [*scored.slides, *(failure.slide for failure in scored.failures)]
        sizes = [*scored.sizes, *((failure.width, failure.height) for failure in scored.failures)]
        error = np.arange(decoded + failed) >= decoded
        labels = np.concatenate([predictions.labels, np.zeros(failed, np.int32)])
        probabilities = np.concatenate([predictions.probabilities, np.zeros((failed, len(self._labels)), np.float32)])
        values = pa.array(probabilities.ravel())
        columns = [
            pa.array([self._roots[slide.root] for slide in slides], pa.int32()),
            pa.array([printable(slide.path) for slide in slides], pa.string()),
            pa.array(labels, mask=error),
            pa.array(probabilities.max(axis=1, initial=0), mask=error),
            pa.FixedSizeListArray.from_arrays(
                values, type=self._part_schema.field("probabilities").type, mask=pa.array(error)
            ),
            pa.array([width for width, _ in sizes], pa.int32()),
            pa.array([height for _, height in sizes], pa.int32()),
            pa.array([None] * decoded + [failure.text for failure in scored.failures], pa.string()),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=self._part_schema)

    def _decoded(self, rows: pa.Table) -> pa.Table:
        """``rows`` with root and label as the words that they stand for."""
        names = {"root": [printable(root) for root in self._roots], "label": self._labels}
        for name, words in names.items():
            codes = rows[name].combine_chunks()
            words_of = pa.DictionaryArray.from_arrays(codes, pa.array(words, pa.string()))
            rows = rows.set_column(rows.schema.get_field_index(name), name, words_of)
        return rows


def _digest(root: int, path: str) -> bytes:
    """16 bytes that no other root and path have."""
    return hashlib.blake2b(f"{root}\0{path}".encode(), digest_size=16).digest()


def _counted(values: pa.ChunkedArray) -> dict[Any, int]:
    return Counter({item["values"]: item["counts"] for item in pc.value_counts(values).to_pylist()})
