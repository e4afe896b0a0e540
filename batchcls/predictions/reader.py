"""Read a predictions file back: each image's prediction, and the record of the run."""

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

from batchcls.errors import LabelsError
from batchcls.predictions.formats import format_to_read
from batchcls.predictions.formats.base import OpenPredictions
from batchcls.predictions.resaved_files import even_lists, fixed_lists, label_order
from batchcls.predictions.row_key import files_of, slides_of
from batchcls.predictions.schema import OPTIONAL, REQUIRED, WORDS, kept_schema
from batchcls.records import Slide
from batchcls.storage.regular_file import check_regular

_ANSWER_COLUMNS = ("label", "probability", "probabilities")
_PART_VALUES = 2**21
_PART_ROWS = 32_768
"""Most rows, and most probabilities, of a part."""
_LABEL_ROWS = 4096
"""Rows at a time that are searched for the order of the labels."""
_UNREADABLE = (pa.ArrowException, OSError, ValueError, RecursionError)


@dataclass(frozen=True, slots=True)
class PredictionsFile:
    """The rows of one `batchcls run`, all of them or a part."""

    path: Path
    table: pa.Table
    """The required columns of `batchcls.predictions.schema`, then the optional ones that were asked for and exist."""
    labels: tuple[str, ...]
    """The engine's labels, in the order of the probabilities."""
    metadata: dict[str, Any]
    """Record of the run; empty where another program wrote the file again and dropped the metadata."""

    @classmethod
    def read(cls, path: Path, labels: Sequence[str] = (), optional: Sequence[str] = ()) -> Self:
        """Read a file that `batchcls run` wrote, or that another program wrote again.

        Args:
            labels: The labels in the order of the probabilities, for a file that does not record them.
            optional: Names of `batchcls.predictions.schema.OPTIONAL` columns to read where the file has them.

        Raises:
            LabelsError: If the file cannot be read, or is no predictions file.
        """
        form = format_to_read(path)
        with _errors_translated(path):
            form.check_size(path, [*REQUIRED, *optional], whole=True)
        with _errors_translated(path), form.opened(path) as file:
            metadata = _metadata(file)
            table = file.table(_columns(file, metadata, optional))
            order = file.labels or _recorded_labels(metadata) or label_order(_tables(table), labels)
            return cls._checked(path, table, order, metadata)

    @classmethod
    def parts(cls, path: Path, labels: Sequence[str] = (), optional: Sequence[str] = ()) -> Iterator[Self]:
        """Read the file a part at a time, in memory that does not grow with the file; the first part has no rows.

        Args:
            labels: The labels in the order of the probabilities, for a file that does not record them.
            optional: Names of `batchcls.predictions.schema.OPTIONAL` columns to read where the file has them.

        Raises:
            LabelsError: If the file cannot be read, or is no predictions file.
        """
        form = format_to_read(path)
        with _errors_translated(path):
            form.check_size(path, [*REQUIRED, *optional], whole=False)
        with _errors_translated(path), form.opened(path) as file:
            metadata = _metadata(file)
            order = (
                file.labels
                or _recorded_labels(metadata)
                or label_order(_batches(file, _LABEL_ROWS, _ANSWER_COLUMNS), labels)
            )
            columns = _columns(file, metadata, optional)
            yield cls._checked(path, file.schema.empty_table().select(columns), order, metadata)
            for table in _batches(file, max(1, min(_PART_ROWS, _PART_VALUES // len(order))), columns):
                yield cls._checked(path, table, order, metadata)

    @classmethod
    def _checked(cls, path: Path, table: pa.Table, labels: tuple[str, ...], metadata: dict[str, Any]) -> Self:
        if not labels:
            raise ValueError("its metadata names no labels, and no row tells them; name them: --labels A,B,...")
        table = _typed(table, len(labels))
        if table["root"].null_count or table["path"].null_count:
            raise ValueError("it has rows that name no file")
        if unknown := sorted(set(pc.unique(table["label"].cast(pa.string())).to_pylist()) - {None, *labels}):
            raise ValueError(f"it has labels {unknown}, which are none of {list(labels)}")
        return cls(path, table, labels, metadata)

    def check_labels(self, labels: Sequence[str]) -> None:
        """Refuse labels that differ from the file's; no labels are never refused.

        Raises:
            LabelsError: If ``labels`` differ, naming both.
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
        """(rows,) position of each row's label in `labels`; -1 for a row without one."""
        positions = pc.index_in(self.table["label"].cast(pa.string()), pa.array(self.labels))
        return np.asarray(pc.fill_null(positions, -1).to_numpy(zero_copy_only=False)).astype(np.int32)

    @property
    def probabilities(self) -> npt.NDArray[np.float32]:
        """(rows, classes), 0 to 1; rows that are not `readable` hold values without a meaning."""
        values = self.table["probabilities"].combine_chunks()
        filled = pc.fill_null(values.values if isinstance(values, pa.FixedSizeListArray) else values, 0.0)
        start = values.offset * len(self.labels)
        flat = filled.to_numpy(zero_copy_only=False)[start : start + len(values) * len(self.labels)]
        return np.asarray(flat, np.float32).reshape(-1, len(self.labels))

    def has(self, name: str) -> bool:
        """Whether the optional column was asked for, and the file has it."""
        return name in self.table.column_names

    def numbers(self, name: str) -> npt.NDArray[np.floating[Any]]:
        """(rows,) numbers of an optional column, or (rows, length) of one of lists; NaN where the column is null.

        Truth values are 0 and 1.
        """
        column = self.table[name].combine_chunks()
        if pa.types.is_boolean(column.type):
            column = column.cast(pa.float32())
        if not pa.types.is_fixed_size_list(column.type):
            return np.asarray(column.to_numpy(zero_copy_only=False))
        values = pc.list_flatten(column).to_numpy(zero_copy_only=False)
        numbers = np.full((len(column), column.type.list_size), np.nan, values.dtype)
        is_valid = np.asarray(column.is_valid())
        numbers[is_valid] = values.reshape(int(is_valid.sum()), column.type.list_size)
        return numbers

    @property
    def files(self) -> pa.ChunkedArray:
        """(rows,) the path of each file when it was classified, as text."""
        return files_of(self.table)

    def slides(self, rows: npt.NDArray[np.int64]) -> list[Slide]:
        """The slides of the rows at these positions."""
        return list(slides_of(self.table.take(pa.array(rows))))

    @property
    def errors(self) -> Counter[str]:
        """The number of rows without a label, by kind of error."""
        kinds = pc.list_element(pc.split_pattern(self.table["error"].drop_null(), ":", max_splits=1), 0)
        return Counter({item["values"]: item["counts"] for item in pc.value_counts(kinds).to_pylist()})


def _metadata(file: OpenPredictions) -> dict[str, Any]:
    """The run's record of the file; empty where another program dropped it."""
    names = file.schema.names
    if missing := [name for name in REQUIRED if name not in names]:
        raise ValueError(f"it has no column {', '.join(map(repr, missing))}")
    if duplicates := [name for name in REQUIRED if names.count(name) > 1]:
        raise ValueError(f"it has more than one column {', '.join(map(repr, duplicates))}")
    # Halves of characters, which JSON can spell and no page or column can hold, are shown as question marks.
    text = json.dumps(file.record, ensure_ascii=False).encode("utf-8", "replace")
    metadata: dict[str, Any] = json.loads(text)
    return metadata


def _columns(file: OpenPredictions, metadata: dict[str, Any], optional: Sequence[str]) -> list[str]:
    """The required columns, and those of ``optional`` that the file has and that no run carried over from a table."""
    names = [name for name in file.schema.names if name in optional]
    if duplicates := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"it has more than one column {', '.join(map(repr, duplicates))}")
    kept = kept_schema(metadata.get("identity", {})).names if names else []
    return [*REQUIRED, *(name for name in names if name not in kept)]


def _recorded_labels(metadata: dict[str, Any]) -> tuple[str, ...]:
    labels = metadata.get("labels", [])
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ValueError("its metadata names no labels")
    return tuple(labels)


def _batches(file: OpenPredictions, rows: int, columns: Sequence[str]) -> Iterator[pa.Table]:
    return (pa.Table.from_batches([batch]) for batch in file.batches(rows, columns))


def _tables(table: pa.Table) -> Iterator[pa.Table]:
    return (pa.Table.from_batches([batch]) for batch in table.to_batches(_LABEL_ROWS))


def _typed(table: pa.Table, classes: int) -> pa.Table:
    """``table`` with every column in its type, and every string valid UTF-8."""
    for position, name in enumerate(table.column_names):
        column = _typed_column(table[name], (REQUIRED | OPTIONAL)[name], classes)
        table = table.set_column(position, name, column)
    table.validate(full=True)
    return table


def _typed_column(column: pa.ChunkedArray, type_: pa.DataType | None, classes: int) -> pa.ChunkedArray:
    if type_ is None:
        return fixed_lists(column, classes)
    if pa.types.is_list(type_) and pa.types.is_floating(type_.value_type):
        return even_lists(column, type_.value_type)
    if type_ == WORDS and not pa.types.is_dictionary(column.type):
        column = column.cast(pa.string()).dictionary_encode()
    return column.cast(type_)


@contextmanager
def _errors_translated(path: Path) -> Iterator[None]:
    """Turn whatever makes the file unreadable into a `LabelsError` that names the file."""
    try:
        if not path.is_dir():
            check_regular(path)
        yield
    except _UNREADABLE as error:
        raise LabelsError(f"{str(path)!r} is no predictions file of batchcls run: {error}") from error
