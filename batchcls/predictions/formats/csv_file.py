"""Predictions files in CSV, for spreadsheets and people; the record of the run is in a JSON file beside it."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from batchcls.predictions.formats.text_files import (
    DigestedStream,
    has_fingerprint,
    json_lists,
    lists_of_json,
    probability_lists,
    record_of,
    record_with_fingerprint,
)
from batchcls.predictions.schema import (
    COLUMNS,
    NOTHING_KEPT,
    PROBABILITY_PREFIX,
    WORDS,
    added_schema,
    file_schema,
    is_list,
)
from batchcls.storage.file_or_object import opened_for_reading
from batchcls.storage.spreadsheet_cells import reversible_cell, text_of_cell
from batchcls.storage.table_memory import check_memory

RECORD_IS_BESIDE = True
_TYPES = {column.name: pa.string() if column.type == WORDS else column.type for column in COLUMNS if column.type}
"""Types of the columns of the file, by name, without the probabilities, which have a column for each label."""
_READ_TYPES = {name: pa.float64() if pa.types.is_integer(kind) else kind for name, kind in _TYPES.items()}
"""Types as which the columns are read: pandas writes a column of whole numbers as 64.0 if one is missing."""
_NAMES = ("root", "path", "label")
_FINGERPRINT = "csv"
"""Key of the record under which size and digest of the CSV file stand."""
_TABLE_ROWS = 65_536
_BLOCK_BYTES = 16 << 20
_LARGEST_HEADER_BYTES = 16 << 20
_MEMORY_PER_BYTE = 3
"""Most bytes in memory for a byte of CSV."""


class OpenCsv:
    """A CSV file, open for reading.

    Args:
        stream: The file, at its beginning.
        record: The record of the run.

    Raises:
        ValueError: If the file has no column for probabilities, or two columns of one name.
    """

    def __init__(self, stream: BinaryIO, record: Mapping[str, Any]) -> None:
        self._stream, self._record = stream, record
        self._header = _header_of(stream)
        if duplicates := sorted({name for name in self._header if self._header.count(name) > 1}):
            raise ValueError(f"it has more than one column {', '.join(map(repr, duplicates))}")
        self._kept = added_schema(record.get("identity", {}))
        self._probabilities = [name for name in self._header if name.startswith(PROBABILITY_PREFIX)]
        if not self._probabilities:
            raise ValueError("it has no columns of probabilities, such as 'p_Benign'")

    @property
    def schema(self) -> pa.Schema:
        whole = file_schema(len(self.labels), self._kept)
        if self._header == header(self.labels, self._kept):
            return whole
        return pa.schema([field for field in whole if field.name in (*self._header, "probabilities")])

    @property
    def record(self) -> Mapping[str, Any]:
        return self._record

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(name.removeprefix(PROBABILITY_PREFIX) for name in self._probabilities)

    def is_as_written(self) -> bool:
        return has_fingerprint(self._record, _FINGERPRINT, self._stream)

    def table(self, columns: Sequence[str]) -> pa.Table:
        empty = self.schema.empty_table().select(list(columns))
        batches = [pa.Table.from_batches([batch]).cast(empty.schema) for batch in self.batches(_TABLE_ROWS, columns)]
        return pa.concat_tables([empty, *batches])

    def batches(self, rows: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        self._stream.seek(0)
        plain = [name for name in columns if name != "probabilities"]
        probabilities = self._probabilities
        reader = pyarrow.csv.open_csv(
            self._stream,
            pyarrow.csv.ReadOptions(block_size=_BLOCK_BYTES),
            pyarrow.csv.ParseOptions(newlines_in_values=True),
            pyarrow.csv.ConvertOptions(
                column_types=_READ_TYPES | dict.fromkeys(probabilities, pa.float32()) | _types(self._kept),
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
                include_columns=[*plain, *(probabilities if "probabilities" in columns else [])],
            ),
        )
        with closing(reader):
            for block in reader:
                for start in range(0, len(block), rows):
                    yield _as_in_parquet(block.slice(start, rows), columns, probabilities, self._kept)


@contextmanager
def opened(path: Path | str, stream: BinaryIO | None = None) -> Iterator[OpenCsv]:
    """A context that yields a CSV file; see `PredictionsFormat.opened`."""
    if stream is not None:
        yield OpenCsv(stream, record_of(path))
        return
    with opened_for_reading(path, follows_links=True) as own:
        yield OpenCsv(own, record_of(path))


def check_size(path: Path, columns: Sequence[str], *, whole: bool) -> None:
    """Refuse a file that would take too much memory; see `PredictionsFormat.check_size`."""
    if whole:
        check_memory(path, path.stat().st_size * _MEMORY_PER_BYTE)


def write(stream: BinaryIO, rows: Iterable[pa.Table], labels: Sequence[str], record: Mapping[str, Any]) -> bytes:
    """Write rows as CSV, and return the JSON for the file beside it; see `PredictionsFormat.write`."""
    kept = added_schema(record.get("identity", {}))
    names = header(labels, kept)
    types = _TYPES | dict.fromkeys(names[4 : 4 + len(labels)], pa.float32()) | _types(kept)
    digested = DigestedStream(stream)
    head = io.StringIO(newline="")
    csv.writer(head, lineterminator="\n").writerow(names)
    digested.write(head.getvalue().encode())
    options = pyarrow.csv.WriteOptions(include_header=False)
    with pyarrow.csv.CSVWriter(
        digested, pa.schema([(name, types[name]) for name in names]), write_options=options
    ) as writer:
        for group in rows:
            writer.write_table(_as_cells(group, names, kept))
    return record_with_fingerprint(record, _FINGERPRINT, digested)


def header(labels: Sequence[str], kept: pa.Schema = NOTHING_KEPT) -> list[str]:
    """The names of the columns of a file."""
    names = [column.name for column in COLUMNS]
    place = names.index("probabilities")
    names[place : place + 1] = [PROBABILITY_PREFIX + label for label in labels]
    return [*names, *kept.names]


def _types(kept: pa.Schema) -> dict[str, pa.DataType]:
    """Types of the cells, by column; lists stand as texts."""
    return {field.name: pa.string() if is_list(field.type) else field.type for field in kept}


def _names(kept: pa.Schema) -> set[str]:
    """The columns whose text comes from the user's files, and may look like a formula."""
    return {*_NAMES, *(field.name for field in kept if pa.types.is_string(field.type))}


def _as_cells(rows: pa.Table, names: Sequence[str], kept: pa.Schema) -> pa.Table:
    """Rows with a column for each label's probability, and without text that a spreadsheet could run."""
    classes = rows.schema.field("probabilities").type.list_size
    columns: list[Any] = []
    for name in rows.column_names:
        if name == "probabilities":
            lists = rows[name].combine_chunks()
            columns += [pc.list_element(lists, position) for position in range(classes)]
        elif name in _names(kept):
            columns.append(_mapped(rows[name].combine_chunks(), reversible_cell))
        elif is_list(rows[name].type):
            columns.append(json_lists(rows[name]))
        else:
            columns.append(rows[name])
    return pa.table(columns, names=list(names))


def _as_in_parquet(
    rows: pa.RecordBatch, columns: Sequence[str], probabilities: Sequence[str], kept: pa.Schema
) -> pa.RecordBatch:
    """Rows of CSV with the columns of a Parquet file."""
    types = _TYPES | _types(kept)
    values = {name: rows[name].cast(types[name]) for name in columns if name != "probabilities"}
    for name in values.keys() & _names(kept):
        if pc.any(pc.starts_with(values[name], "'")).as_py():
            values[name] = _mapped(values[name], text_of_cell)
    for name in values.keys() & {field.name for field in kept if is_list(field.type)}:
        values[name] = lists_of_json(values[name], kept.field(name).type)
    if "probabilities" in columns:
        values["probabilities"] = probability_lists([rows[name] for name in probabilities])
    return pa.RecordBatch.from_arrays([values[name] for name in columns], names=list(columns))


def _mapped(column: pa.Array, change: Any) -> pa.Array:
    """Text with each value changed; a null stays null."""
    if isinstance(column, pa.DictionaryArray):
        return pa.DictionaryArray.from_arrays(column.indices, _mapped(column.dictionary, change)).cast(pa.string())
    return pa.array([None if text is None else change(text) for text in column.to_pylist()], pa.string())


def _header_of(stream: BinaryIO) -> list[str]:
    text = io.TextIOWrapper(cast(Any, stream), encoding="utf-8-sig", newline="")
    try:
        first = next(csv.reader(iter(lambda: text.readline(_LARGEST_HEADER_BYTES), ""), strict=True), [])
    except csv.Error as error:
        raise ValueError(f"its first line is no header: {error}") from error
    finally:
        text.detach()
    return first
