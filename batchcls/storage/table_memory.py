"""The memory that a table needs, computed before it is taken; of Parquet, from its footer and its pages' headers."""

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
"""Bytes of a value in memory, by its physical type; of BYTE_ARRAY without the text."""
_NO_BOMB_BYTES = 1 << 30
"""Size in memory up to which no file is refused."""
_LARGEST_EXPANSION = 300
"""Largest size in memory of a sound file, as a multiple of its own size."""
_LARGEST_FOOTER_BYTES = 16 << 20
"""Size of the footer of some fifty thousand columns in row groups."""
_BATCH_ROWS = 65_536


def check_parquet_size(path: Path, columns: Sequence[str] | None = None, *, whole: bool) -> None:
    """Refuse a Parquet file that would take more memory than a sound file of its size does.

    Args:
        columns: Columns that will be read; None: all.
        whole: Whether all rows will be in memory at one time.

    Raises:
        LabelsError: If it would, or, if ``whole``, as by `check_memory`.
        ArrowException, OSError, ValueError: If it is damaged.
    """
    size = path.stat().st_size
    largest = most_plausible_bytes(size)
    with path.open("rb") as stream:
        if (length := footer_bytes(stream)) > _LARGEST_FOOTER_BYTES:
            raise LabelsError(
                f"{str(path)!r} has a footer of {length:,} bytes, which no sound file has (at most "
                f"{_LARGEST_FOOTER_BYTES:,}); write it again with larger row groups"
            )
        unfolded = 0
        for part_bytes in _part_sizes(stream, columns, largest):
            unfolded += part_bytes
            if unfolded > largest:
                raise LabelsError(
                    f"{str(path)!r} has {size:,} bytes and unfolds to more than {unfolded:,}, which no sound file "
                    "does; write it again from where it comes from"
                )
    if whole:
        check_memory(path, unfolded)


def most_plausible_bytes(size: int) -> int:
    """Most memory in bytes that a sound file of ``size`` bytes takes."""
    return max(_NO_BOMB_BYTES, _LARGEST_EXPANSION * size)


def check_memory(path: Path, needed: int) -> None:
    """Refuse a table that needs more than half of the memory that this process could have.

    Raises:
        LabelsError: If it does.
    """
    capacity = capacity_bytes()
    if needed > capacity // 2:
        raise LabelsError(
            f"{str(path)!r} takes {needed:,} bytes in memory, more than half of the {capacity:,} that there are for "
            "this process; take a part of its rows, or raise its limits (ulimit -v, cgroup), or take a larger machine"
        )


def _part_sizes(stream: BinaryIO, columns: Sequence[str] | None, largest: int) -> Iterator[int]:
    """Parts of the bytes in memory: of pages first, whose headers are quickly read; then of repeated texts."""
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
        yield from _text_sizes(stream.name, group, name, rows)


def _text_sizes(path: str, group: int, name: str, rows: int) -> Iterator[int]:
    """Parts of the bytes of the texts in a column's first rows."""
    with pq.ParquetFile(path, read_dictionary=[name]) as file:
        for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=[name]):
            column = batch.column(0)
            if isinstance(column, pa.DictionaryArray):
                lengths = np.asarray(pc.fill_null(pc.binary_length(column.dictionary), 0)).astype(np.int64)
                yield int(lengths[np.asarray(column.indices.drop_null())].sum())
            rows -= len(batch)
            if rows <= 0:
                return
