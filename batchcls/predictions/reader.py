"""A predictions file, read back: what an engine said of each image, and what the file says of its own making."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchcls.errors import LabelsError
from batchcls.predictions.rewritten import fixed_lists, label_order
from batchcls.records import METADATA_KEY
from batchcls.storage.regular_file import check_regular
from batchcls.storage.table_size import check_unfolded

_WORDS = pa.dictionary(pa.int32(), pa.string())
_COLUMNS = {
    "root": _WORDS,
    "path": pa.string(),
    "label": _WORDS,
    "probability": pa.float32(),
    "probabilities": None,
    "width": pa.int32(),
    "height": pa.int32(),
    "error": pa.string(),
}
"""Each with its type, but for the list of probabilities: how long that is, the metadata says."""
_ANSWERS = ("label", "probability", "probabilities")
_PART_VALUES = 2**21
_PART_ROWS = 32_768
"""A part has at most so many rows, and so many probabilities."""
_TELLING_ROWS = 4096
"""So many rows at a time are asked for the order of the labels."""
_UNREADABLE = (pa.ArrowException, OSError, ValueError, RecursionError)


@dataclass(frozen=True, slots=True)
class PredictionsFile:
    """The rows of one `batchcls run`, or some of them."""

    path: Path
    table: pa.Table
    """The columns of `batchcls.predictions.rows.schema` that figures are made of; root and label as dictionaries."""
    labels: tuple[str, ...]
    """The engine's, in the order of its probabilities."""
    metadata: dict[str, Any]
    """As the run wrote it; empty where another program wrote the file again and left it out."""

    @classmethod
    def read(cls, path: Path, labels: Sequence[str] = ()) -> Self:
        """Read what `batchcls run` wrote, or what another program made of it.

        Args:
            labels: In the order of the probabilities, for a file that does not say.

        Raises:
            LabelsError: If the file cannot be read, or nothing but its name is that of a predictions file.
        """
        with _refusals(path):
            check_unfolded(path, list(_COLUMNS), whole=True)
            metadata = _metadata(pq.read_schema(path))
            table = pq.read_table(path, columns=list(_COLUMNS), partitioning=None)
            table = table.select(list(_COLUMNS))
            order = _recorded_labels(metadata) or label_order(_tables(table), labels)
            return cls._checked(path, table, order, metadata)

    @classmethod
    def parts(cls, path: Path, labels: Sequence[str] = ()) -> Iterator[Self]:
        """The same, some rows at a time, in memory that does not grow with the file; the first part has no rows.

        Raises:
            LabelsError: As by `read`.
        """
        with _refusals(path):
            check_unfolded(path, list(_COLUMNS), whole=False)
        with _refusals(path), pq.ParquetFile(path) as file:
            metadata = _metadata(file.schema_arrow)
            order = _recorded_labels(metadata) or label_order(_batches(file, _TELLING_ROWS, _ANSWERS), labels)
            head = cls._checked(path, file.schema_arrow.empty_table().select(list(_COLUMNS)), order, metadata)
            yield head
            for table in _batches(file, max(1, min(_PART_ROWS, _PART_VALUES // len(order))), list(_COLUMNS)):
                yield cls._checked(path, table, order, metadata)

    @classmethod
    def _checked(cls, path: Path, table: pa.Table, labels: tuple[str, ...], metadata: dict[str, Any]) -> Self:
        if not labels:
            raise ValueError("its metadata names no labels, and no row tells them; name them: --labels A,B,...")
        table = _typed(table, len(labels))
        if table["root"].null_count or table["path"].null_count:
            raise ValueError("it has rows that name no file")
        if strange := sorted(set(pc.unique(table["label"].cast(pa.string())).to_pylist()) - {None, *labels}):
            raise ValueError(f"it has labels {strange}, which are none of {list(labels)}")
        return cls(path, table, labels, metadata)

    def check_labels(self, labels: Sequence[str]) -> None:
        """Refuse labels that are not those of the file.

        Raises:
            LabelsError: Naming both.
        """
        if labels and tuple(labels) != self.labels:
            raise LabelsError(
                f"{str(self.path)!r} has the labels {list(self.labels)}, not {list(labels)}; leave out --labels"
            )

    @property
    def readable(self) -> npt.NDArray[np.bool_]:
        """(rows,) whether the row has a label."""
        return np.asarray(pc.is_valid(self.table["label"]).to_numpy(zero_copy_only=False))

    @property
    def codes(self) -> npt.NDArray[np.int32]:
        """(rows,) position of each row's label in `labels`; -1 where it has none."""
        found = pc.index_in(self.table["label"].cast(pa.string()), pa.array(self.labels))
        return np.asarray(pc.fill_null(found, -1).to_numpy(zero_copy_only=False)).astype(np.int32)

    @property
    def probabilities(self) -> npt.NDArray[np.float32]:
        """(rows, classes), 0 to 1; what stands in rows that are not `readable` means nothing."""
        values = self.table["probabilities"].combine_chunks()
        filled = pc.fill_null(values.values if isinstance(values, pa.FixedSizeListArray) else values, 0.0)
        start = values.offset * len(self.labels)
        flat = filled.to_numpy(zero_copy_only=False)[start : start + len(values) * len(self.labels)]
        return np.asarray(flat, np.float32).reshape(-1, len(self.labels))

    @property
    def files(self) -> pa.ChunkedArray:
        """(rows,) where each image stood when it was classified."""
        return pc.binary_join_element_wise(self.table["root"].cast(pa.string()), self.table["path"], "/")

    @property
    def errors(self) -> Counter[str]:
        """How many rows have no label, by kind."""
        kinds = pc.list_element(pc.split_pattern(self.table["error"].drop_null(), ":", max_splits=1), 0)
        return Counter({item["values"]: item["counts"] for item in pc.value_counts(kinds).to_pylist()})


def _metadata(schema: pa.Schema) -> dict[str, Any]:
    """What the run wrote of itself; empty where another program left it out."""
    if missing := [name for name in _COLUMNS if name not in schema.names]:
        raise ValueError(f"it has no column {', '.join(map(repr, missing))}")
    if twice := [name for name in _COLUMNS if schema.names.count(name) > 1]:
        raise ValueError(f"it has more than one column {', '.join(map(repr, twice))}")
    metadata = json.loads((schema.metadata or {}).get(METADATA_KEY, b"{}"))
    # Halves of characters, which JSON can spell and no page or column can hold, are shown as question marks.
    metadata = json.loads(json.dumps(metadata, ensure_ascii=False).encode("utf-8", "replace"))
    return metadata if isinstance(metadata, dict) else {}


def _recorded_labels(metadata: dict[str, Any]) -> tuple[str, ...]:
    labels = metadata.get("labels", [])
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ValueError("its metadata names no labels")
    return tuple(labels)


def _batches(file: pq.ParquetFile, rows: int, columns: Sequence[str]) -> Iterator[pa.Table]:
    for group in range(file.num_row_groups):  # one at a time: of all that it reads, pyarrow keeps the bytes
        for batch in file.iter_batches(rows, row_groups=[group], columns=list(columns)):
            yield pa.Table.from_batches([batch])


def _tables(table: pa.Table) -> Iterator[pa.Table]:
    return (pa.Table.from_batches([batch]) for batch in table.to_batches(_TELLING_ROWS))


def _typed(table: pa.Table, classes: int) -> pa.Table:
    """``table`` with the columns of `_COLUMNS` in their types, and every string valid."""
    for position, name in enumerate(table.column_names):
        wanted, column = _COLUMNS[name], table[name]
        if wanted == _WORDS and not pa.types.is_dictionary(column.type):
            column = column.cast(pa.string()).dictionary_encode()
        column = fixed_lists(column, classes) if wanted is None else column.cast(wanted)
        table = table.set_column(position, name, column)
    table.validate(full=True)
    return table


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """Turns whatever makes a file unreadable into a `LabelsError` that names it."""
    try:
        check_regular(path)
        yield
    except _UNREADABLE as error:
        raise LabelsError(f"{str(path)!r} is no predictions file of batchcls run: {error}") from error
