"""Tables in CSV and Parquet, read a batch of rows at a time, in memory that does not grow with the table."""

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from batchcls.errors import LabelsError, SlidesError
from batchcls.records import METADATA_KEY
from batchcls.storage.regular_file import check_regular
from batchcls.storage.spreadsheet_cells import text_of_cell
from batchcls.storage.table_memory import check_parquet_size

_BATCH_ROWS = 8192
_BLOCK_BYTES = 1 << 20
"""Largest length of a row of CSV in bytes."""
_BUFFER_BYTES = 1 << 20
_DELIMITERS = ",;\t|"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_DAMAGED = (pa.ArrowException, OSError, ValueError, LookupError, RecursionError, csv.Error)


class TableFile(Protocol):
    """A table, open for reading."""

    @property
    def schema(self) -> pa.Schema:
        """The columns; texts may come as bytes, since those of a CSV file may not be UTF-8."""

    @property
    def record(self) -> Mapping[str, Any]:
        """Record that batchcls has written into the file; empty in a file of other programs."""

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """All rows, some at a time, with these columns.

        Raises:
            SlidesError: If the table is damaged.
        """


class ParquetTable:
    """A `TableFile` in Parquet.

    Raises:
        SlidesError: If the file is damaged, or would take more memory than a sound one.
    """

    def __init__(self, path: Path, name: str = "") -> None:
        self._path = path
        self._name = name or str(path)
        with table_errors(self._name):
            check_regular(path)
            self._check_size(())
            with pq.ParquetFile(path) as file:
                self.schema: pa.Schema = file.schema_arrow
                self.rows = int(file.metadata.num_rows)
                self._notes = dict(file.metadata.metadata or {})
            names = self.schema.names
            if doubled := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"it has more than one column {', '.join(map(repr, doubled))}")

    @property
    def record(self) -> Mapping[str, Any]:
        with table_errors(self._name):
            record = json.loads(self._notes.get(METADATA_KEY, b"{}"))
        return record if isinstance(record, dict) else {}

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        with table_errors(self._name):
            self._check_size(columns)
            # Without pre_buffer, pyarrow reads a row group page by page, instead of all of it at once.
            with pq.ParquetFile(self._path, buffer_size=_BUFFER_BYTES, pre_buffer=False) as file:
                for group in range(file.num_row_groups):  # pyarrow keeps the bytes of all groups of one call
                    yield from file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=list(columns))

    def _check_size(self, columns: Sequence[str]) -> None:
        try:
            check_parquet_size(self._path, columns, whole=False)
        except LabelsError as error:
            raise SlidesError(str(error).replace(str(self._path), self._name)) from error


class CsvTable:
    """A `TableFile` in CSV, with commas, semicolons, tabs or bars between the cells; all cells are texts.

    Raises:
        SlidesError: If the file has no header.
    """

    record: Mapping[str, Any] = {}

    def __init__(self, path: Path, name: str = "") -> None:
        self._path = path
        self._name = name or str(path)
        with table_errors(self._name):
            check_regular(path)
            with path.open("rb") as stream:
                self._delimiter, names = _header(stream)
        if duplicates := sorted({name for name in names if names.count(name) > 1}):
            raise SlidesError(f"the table {self._name!r} has more than one column {', '.join(map(repr, duplicates))}")
        self.schema = pa.schema([(name, pa.string()) for name in names])
        self._is_ours = {"probability", "label"} <= set(names) and any(name.startswith("p_") for name in names)
        """Whether it is a predictions file, whose texts are protected against spreadsheets."""

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        with table_errors(self._name), self._path.open("rb") as stream:
            reader = pyarrow.csv.open_csv(
                stream,
                pyarrow.csv.ReadOptions(block_size=_BLOCK_BYTES),
                pyarrow.csv.ParseOptions(delimiter=self._delimiter, newlines_in_values=True),
                pyarrow.csv.ConvertOptions(
                    column_types=dict.fromkeys(self.schema.names, pa.binary()),
                    null_values=[""],
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                    include_columns=list(columns),
                ),
            )
            with closing(reader):
                for batch in reader:
                    yield self._unprotected(batch) if self._is_ours else batch

    def _unprotected(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        columns = [
            pa.array(
                [
                    text and text_of_cell(text.decode(errors="surrogateescape")).encode(errors="surrogateescape")
                    for text in column.to_pylist()
                ],
                pa.binary(),
            )
            for column in batch.columns
        ]
        return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def open_table(path: Path, name: str = "") -> TableFile:
    """The table in a file, whose ending names its format.

    Args:
        path: The file.
        name: Name of the table in messages; empty: its path.

    Raises:
        SlidesError: If the file cannot be read, or is damaged.
    """
    return CsvTable(path, name) if path.suffix.lower() == ".csv" else ParquetTable(path, name)


@contextmanager
def table_errors(name: str) -> Iterator[None]:
    """A context in which whatever makes a table unreadable becomes a `SlidesError`."""
    try:
        yield
    except _DAMAGED as error:
        reason = (isinstance(error, OSError) and error.strerror) or " ".join(str(error).split())
        raise SlidesError(f"the table {name!r} cannot be read: {reason}") from error


def _header(stream: BinaryIO) -> tuple[str, list[str]]:
    """The delimiter by which a header has a column ``path``, or else most columns; and the names of the columns."""
    if stream.read(2) in _UTF16_MARKS:
        raise ValueError("it is in UTF-16; save it as CSV UTF-8")
    stream.seek(0)
    head = io.BytesIO(stream.read(_BLOCK_BYTES))
    text = io.TextIOWrapper(cast(Any, head), encoding="utf-8-sig", errors="surrogateescape", newline="").read()
    lines = re.split(r"\r\n|\r|\n", text.lstrip("\r\n"), maxsplit=1)
    headers = {mark: next(csv.reader([lines[0]], delimiter=mark), []) for mark in _DELIMITERS}
    delimiter = max(headers, key=lambda mark: ("path" in headers[mark], len(headers[mark])))
    if not any(headers[delimiter]):
        raise ValueError("its first line does not name the columns")
    return delimiter, headers[delimiter]
