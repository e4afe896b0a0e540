"""Predictions files in JSON Lines, an object a row, for programs; the record of the run is in a JSON file beside it."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from json.encoder import encode_basestring_ascii
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from batchcls.predictions.formats.text_files import (
    DigestedStream,
    has_fingerprint,
    json_lists,
    probability_lists,
    record_of,
    record_with_fingerprint,
)
from batchcls.predictions.schema import COLUMNS, WORDS, added_schema, file_schema, is_list
from batchcls.storage.column_values import one_array
from batchcls.storage.file_or_object import opened_for_reading
from batchcls.storage.table_memory import check_memory

RECORD_IS_BESIDE = True
_FINGERPRINT = "jsonl"
"""Key of the record under which size and digest of the file stand."""
_SPECIAL = r'["\\\x00-\x1f\x{85}\x{2028}\x{2029}]'
"""Characters that JSON does not allow in a text as they are, and those that some programs take for ends of lines."""
_BLOCK_BYTES = 1 << 20
_LARGEST_LINE_BYTES = 16 << 20
_LEAST_LINE_BYTES = 20
"""Least bytes of a line on average over a block: even ``{"root":"","path":""}`` has more."""
_ROW_BYTES, _VALUE_BYTES = 96, 4
"""Memory for a row without its texts, and for each of its probabilities."""
_MEMORY_BYTES = 64 << 20
"""Memory for the rows that are read at one time."""
_TABLE_ROWS = 65_536


class OpenJsonl:
    """A file of JSON Lines, open for reading.

    Args:
        stream: The file.
        record: The record of the run.

    Raises:
        ValueError: If its first line is no object.
    """

    def __init__(self, stream: BinaryIO, record: Mapping[str, Any]) -> None:
        self._stream, self._record = stream, record
        self._kept = added_schema(record.get("identity", {}))
        self._names, labels = _names_and_labels(stream)
        self._labels = labels or _recorded_labels(record)

    @property
    def schema(self) -> pa.Schema:
        whole = file_schema(len(self._labels), self._kept)
        return whole if self._names == whole.names else pa.schema([it for it in whole if it.name in self._names])

    @property
    def record(self) -> Mapping[str, Any]:
        return self._record

    @property
    def labels(self) -> tuple[str, ...]:
        return self._labels

    def is_as_written(self) -> bool:
        return has_fingerprint(self._record, _FINGERPRINT, self._stream)

    def table(self, columns: Sequence[str]) -> pa.Table:
        empty = self.schema.empty_table().select(list(columns))
        batches = [pa.Table.from_batches([batch]).cast(empty.schema) for batch in self.batches(_TABLE_ROWS, columns)]
        return pa.concat_tables([empty, *batches])

    def batches(self, rows: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        fields = {field.name: field for field in file_schema(len(self._labels), self._kept)}
        chosen = [fields[name] for name in columns]
        options = pyarrow.json.ParseOptions(
            explicit_schema=pa.schema([(field.name, self._type_in_json(field)) for field in chosen]),
            unexpected_field_behavior="ignore",
        )
        for block in _blocks(self._stream, min(rows, _rows_in_memory(len(self._labels)))):
            reading = pyarrow.json.ReadOptions(block_size=len(block) + 1)
            table = pyarrow.json.read_json(pa.BufferReader(block), reading, options).combine_chunks()
            arrays = [self._as_in_parquet(one_array(table[field.name]), field) for field in chosen]
            yield pa.RecordBatch.from_arrays(arrays, names=list(columns))

    def _type_in_json(self, field: pa.Field) -> pa.DataType:
        if field.name == "probabilities":
            return pa.struct([(label, pa.float32()) for label in self._labels])
        if field.name not in self._kept.names and pa.types.is_integer(field.type):
            return pa.float64()  # pandas writes a column of whole numbers as 64.0 if one is missing
        if field.type == WORDS or pa.types.is_temporal(field.type):
            return pa.string()
        if pa.types.is_fixed_size_list(field.type):
            return pa.list_(pa.float32())
        return field.type

    def _as_in_parquet(self, values: pa.Array, field: pa.Field) -> pa.Array:
        if field.name != "probabilities":
            return values if field.type == WORDS else values.cast(field.type)
        return probability_lists(values.flatten()) if self._labels else pa.nulls(len(values), field.type)


@contextmanager
def opened(path: Path | str, stream: BinaryIO | None = None) -> Iterator[OpenJsonl]:
    """A context that yields a file of JSON Lines; see `PredictionsFormat.opened`."""
    if stream is not None:
        yield OpenJsonl(stream, record_of(path))
        return
    with opened_for_reading(path, follows_links=True) as own:
        yield OpenJsonl(own, record_of(path))


def check_size(path: Path, columns: Sequence[str], *, whole: bool) -> None:
    """Refuse a file that would take too much memory; see `PredictionsFormat.check_size`."""
    if not whole:
        return
    with path.open("rb") as stream:
        _, labels = _names_and_labels(stream)
        rows = sum(block.count(b"\n") for block in _blocks(stream, _rows_in_memory(len(labels))))
    check_memory(path, path.stat().st_size + rows * (_ROW_BYTES + _VALUE_BYTES * len(labels)))


def write(stream: BinaryIO, rows: Iterable[pa.Table], labels: Sequence[str], record: Mapping[str, Any]) -> bytes:
    """Write rows as JSON Lines, and return the JSON for the file beside it; see `PredictionsFormat.write`."""
    digested = DigestedStream(stream)
    for group in rows:
        for batch in group.to_batches():
            digested.write("".join(_lines(batch, labels).to_pylist()).encode())
    return record_with_fingerprint(record, _FINGERPRINT, digested)


def _lines(rows: pa.RecordBatch, labels: Sequence[str]) -> pa.Array:
    """(rows,) each row as a line of JSON."""
    pieces: list[Any] = []
    for number, name in enumerate(rows.schema.names):
        pieces.append(f"{', ' if number else '{'}{encode_basestring_ascii(name)}: ")
        values = rows[name]
        pieces.append(_objects(values, labels) if name == "probabilities" else _json_values(values))
    return pc.binary_join_element_wise(*pieces, "}\n", "")


def _objects(lists: pa.FixedSizeListArray, labels: Sequence[str]) -> pa.Array:
    """(rows,) lists of probabilities as JSON objects by label."""
    pieces: list[Any] = []
    for position, label in enumerate(labels):
        pieces.append(f"{', ' if position else '{'}{encode_basestring_ascii(label)}: ")
        pieces.append(_json_values(pc.list_element(lists, position)))
    objects = pc.binary_join_element_wise(*pieces, "}", "")
    return pc.if_else(lists.is_valid(), objects, "null")


def _json_values(values: pa.Array) -> pa.Array:
    """(rows,) values of one column as JSON; what is no number in JSON is null."""
    if isinstance(values, pa.DictionaryArray):
        texts = pa.DictionaryArray.from_arrays(values.indices, _json_texts(values.dictionary)).cast(pa.string())
    elif pa.types.is_string(values.type):
        texts = _json_texts(values)
    elif pa.types.is_temporal(values.type):
        day_and_time = pc.replace_substring(values.cast(pa.string()), " ", "T")
        texts = pc.binary_join_element_wise('"', day_and_time, '"', "")
    elif pa.types.is_floating(values.type):
        texts = pc.if_else(pc.is_finite(values), values, None).cast(pa.string())
    elif is_list(values.type):
        texts = json_lists(values)
    else:
        texts = values.cast(pa.string())
    return pc.fill_null(texts, "null")


def _json_texts(texts: pa.Array) -> pa.Array:
    if pc.any(pc.match_substring_regex(texts, _SPECIAL)).as_py():
        return pa.array(
            [None if text is None else encode_basestring_ascii(text) for text in texts.to_pylist()], pa.string()
        )
    return pc.binary_join_element_wise('"', texts, '"', "")


def _names_and_labels(stream: BinaryIO) -> tuple[list[str], tuple[str, ...]]:
    """The names in the first line, and the labels of the first line that has probabilities; none if no line has."""
    names: list[str] | None = None
    stream.seek(0)
    for number, line in enumerate(iter(lambda: stream.readline(_LARGEST_LINE_BYTES), b""), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"its line {number:,} is no JSON: {error}") from error
        if not isinstance(row, dict):
            raise ValueError(f"its line {number:,} is no object")
        names = list(row) if names is None else names
        if isinstance(probabilities := row.get("probabilities"), dict):
            return names, tuple(probabilities)
    return [column.name for column in COLUMNS] if names is None else names, ()


def _recorded_labels(record: Mapping[str, Any]) -> tuple[str, ...]:
    labels = record.get("labels", [])
    return tuple(labels) if isinstance(labels, list) and all(isinstance(label, str) for label in labels) else ()


def _rows_in_memory(labels: int) -> int:
    """Most rows that are read at one time."""
    return max(1, _MEMORY_BYTES // (_ROW_BYTES + _VALUE_BYTES * labels))


def _blocks(stream: BinaryIO, most_lines: int) -> Iterator[bytes]:
    """The file in blocks of whole lines, each about a megabyte, and at most ``most_lines`` lines.

    Raises:
        ValueError: If lines are too long, or too short to be rows, which would take far more memory than the file.
    """
    stream.seek(0)
    pending = b""
    while chunk := stream.read(_BLOCK_BYTES):
        head, newline, pending = (pending + chunk).rpartition(b"\n")
        if len(pending) > _LARGEST_LINE_BYTES:
            raise ValueError(f"a line has more than {_LARGEST_LINE_BYTES:,} bytes")
        if newline:
            yield from _lines_together(head.split(b"\n"), most_lines)
    if pending.strip():
        yield pending + b"\n"


def _lines_together(lines: list[bytes], most_lines: int) -> Iterator[bytes]:
    rows = [line for line in lines if line.strip()]
    if sum(map(len, rows)) < _LEAST_LINE_BYTES * len(rows):
        raise ValueError("its lines are too short to be rows")
    for start in range(0, len(rows), most_lines):
        yield b"\n".join(rows[start : start + most_lines]) + b"\n"
