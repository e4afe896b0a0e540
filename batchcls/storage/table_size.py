"""What a table unfolds to, found out before memory is taken; of Parquet, by its footer and its pages' headers."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchcls.errors import LabelsError
from batchcls.memory import capacity_bytes
from batchcls.storage.parquet_pages import column_chunks, footer_bytes, pages_of

_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8, "BYTE_ARRAY": 4}
"""Bytes of a value in memory; of BYTE_ARRAY without its text."""
_NO_BOMB_BYTES = 1 << 30
_LARGEST_EXPANSION = 300
"""Times its size that a sound file may unfold to."""
_LARGEST_FOOTER_BYTES = 16 << 20
"""Of some fifty thousand columns in row groups."""
_BATCH_ROWS = 65_536


def check_unfolded(path: Path, columns: Sequence[str] | None = None, *, whole: bool) -> None:
    """Refuse a Parquet file that unfolds to what no sound file of its size does.

    Args:
        columns: Those that will be read; None: all.
        whole: Whether they will be held in memory all at once.

    Raises:
        LabelsError: If it does, or, if ``whole``, as by `check_memory`.
        ArrowException, OSError, ValueError: If it is damaged.
    """
    size = path.stat().st_size
    largest = largest_sound(size)
    with path.open("rb") as stream:
        if (length := footer_bytes(stream)) > _LARGEST_FOOTER_BYTES:
            raise LabelsError(
                f"{str(path)!r} has a footer of {length:,} bytes, which no sound file has (at most "
                f"{_LARGEST_FOOTER_BYTES:,}); write it again with larger row groups"
            )
        unfolded = 0
        for more in _unfolding(stream, columns, largest):
            unfolded += more
            if unfolded > largest:
                raise LabelsError(
                    f"{str(path)!r} has {size:,} bytes and unfolds to more than {unfolded:,}, which no sound file "
                    "does; write it again from where it comes from"
                )
    if whole:
        check_memory(path, unfolded)


def largest_sound(size: int) -> int:
    """Bytes that a file of ``size`` bytes may unfold to; more is made to be more."""
    return max(_NO_BOMB_BYTES, _LARGEST_EXPANSION * size)


def check_memory(path: Path, needed: int) -> None:
    """Refuse a table that takes more than half of the memory that this process could have.

    Raises:
        LabelsError: If it does.
    """
    capacity = capacity_bytes()
    if needed > capacity // 2:
        raise LabelsError(
            f"{str(path)!r} takes {needed:,} bytes in memory, more than half of the {capacity:,} that there are for "
            "this process; take a part of its rows, or raise its limits (ulimit -v, cgroup), or take a larger machine"
        )


def _unfolding(stream: BinaryIO, columns: Sequence[str] | None, largest: int) -> Iterator[int]:
    """Bytes in memory, bit by bit: pages first, which cost nothing to look at; then texts that dictionaries repeat."""
    repeated: dict[tuple[int, str], int] = {}
    with pq.ParquetFile(stream.name) as file:
        schema, all_rows = file.schema, file.metadata.num_rows
    for chunk in column_chunks(stream):
        if chunk.column >= len(schema):
            raise ValueError("a row group has columns that its schema does not")
        leaf = schema.column(chunk.column)
        name = leaf.path.partition(".")[0]
        if columns is not None and name not in columns:
            continue
        pages = pages_of(stream, chunk)
        yield pages.unfolded + pages.values * _WIDTHS.get(leaf.physical_type, leaf.length)
        if leaf.physical_type == "BYTE_ARRAY" and pages.dictionary * pages.from_dictionary > largest:
            flat = not leaf.max_repetition_level
            repeated[chunk.row_group, name] = pages.from_dictionary if flat else all_rows
    for (group, name), rows in repeated.items():
        yield from _texts(stream.name, group, name, rows)


def _texts(path: str, group: int, name: str, rows: int) -> Iterator[int]:
    """Bytes of the texts in a column's first rows, each of which is held once while they are counted."""
    with pq.ParquetFile(path, read_dictionary=[name]) as file:
        for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=[name]):
            column = batch.column(0)
            if isinstance(column, pa.DictionaryArray):
                lengths = np.asarray(pc.fill_null(pc.binary_length(column.dictionary), 0)).astype(np.int64)
                yield int(lengths[np.asarray(column.indices.drop_null())].sum())
            rows -= len(batch)
            if rows <= 0:
                return
