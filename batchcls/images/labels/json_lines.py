"""Tables in JSON Lines: one object on each line, whose keys are the columns."""

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from batchcls.errors import LabelsError
from batchcls.storage.table_memory import check_memory, largest_plausible_bytes

_CHUNK_ROWS = 50_000
_CELL_BYTES = 8
_TEXT_EXPANSION = 6
"""Bytes of memory for each byte of the file while it is read."""

_Row = Mapping[str, Any]


def read_json_lines(path: Path) -> pa.Table:
    """A table with a row for each object, null where an object lacks a key; blank lines are skipped.

    Raises:
        LabelsError: If the table would take more memory than a sound file of its size, or than this machine has.
        ArrowException, OSError, ValueError: If a line is no object, or a column holds values of several kinds.
    """
    size = path.stat().st_size
    check_memory(path, _TEXT_EXPANSION * size)
    columns: dict[str, list[pa.Array]] = {}
    rows = 0
    with path.open(encoding="utf-8-sig", newline="\n") as stream:
        objects = _objects(stream)
        while chunk := list(islice(objects, _CHUNK_ROWS)):
            names = dict.fromkeys([*columns, *(name for row in chunk for name in row)])
            if (rows + len(chunk)) * len(names) * _CELL_BYTES > largest_plausible_bytes(size):
                raise LabelsError(
                    f"{str(path)!r} has {size:,} bytes and unfolds to {rows + len(chunk):,} rows of {len(names):,} "
                    "columns and more, which no sound file does; give its rows the columns that they need"
                )
            for name in names:
                before = [pa.nulls(rows)] if name not in columns and rows else []
                columns.setdefault(name, before).append(_array(name, [row.get(name) for row in chunk]))
            rows += len(chunk)
    return pa.table({name: _joined(name, arrays) for name, arrays in columns.items()})


def _objects(lines: Iterator[str]) -> Iterator[_Row]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=_without_duplicates)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"line {number:,}: {error}") from error
        if not isinstance(row, dict):
            raise ValueError(f'line {number:,} is no object, such as {{"path": "a.png", "label": "b"}}')
        yield row


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError("it names a key twice")
    return row


def _array(name: str, values: list[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except OverflowError as error:
        raise ValueError(f"{name!r} holds a number of more than 64 bits") from error


def _joined(name: str, arrays: list[pa.Array]) -> pa.ChunkedArray:
    """A column of all chunks in one type; a chunk without values takes any."""
    tables = [pa.table({name: array}) for array in arrays]
    return pa.concat_tables(tables, promote_options="permissive")[name]
