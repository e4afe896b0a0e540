"""The memory that a table will need, computed before it is read: for Parquet, from its footer and page headers."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchcls.errors import LabelsError
from batchcls.storage.memory import capacity_bytes
from batchcls.storage.parquet_pages import column_chunks, footer_bytes, page_totals

_VALUE_BYTES = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8, "BYTE_ARRAY": 4}
"""Bytes of a value in memory, by physical type; for BYTE_ARRAY, without the text itself."""
_ALWAYS_ALLOWED_BYTES = 1 << 30
"""Size in memory up to which no file is refused."""
_LARGEST_EXPANSION = 300
"""Largest plausible ratio of a file's size in memory to its size on disk."""
_LARGEST_FOOTER_BYTES = 16 << 20
"""Largest plausible footer, that of some fifty thousand column chunks."""
_BATCH_ROWS = 65_536


def check_parquet_size(path: Path, columns: Sequence[str] | None = None, *, whole: bool) -> int:
    """Refuse a Parquet file that would take more memory than a sound file of its size does.

    Args:
        columns: Columns that will be read; None: all.
        whole: Whether all rows will be in memory at one time.

    Returns:
        Size in memory of all rows, in bytes.

    Raises:
        LabelsError: If the file would; or, if ``whole``, would take more than half of the memory for this process.
        ArrowException, OSError, ValueError: If the file is damaged.
    """
    size = path.stat().st_size
    largest = largest_plausible_bytes(size)
    with path.open("rb") as stream:
        if (length := footer_bytes(stream)) > _LARGEST_FOOTER_BYTES:
            raise LabelsError(
                f"{str(path)!r} has a footer of {length:,} bytes, which no sound file has (at most "
                f"{_LARGEST_FOOTER_BYTES:,}); write it again with larger row groups"
            )
        memory_bytes = 0
        for part_bytes in _part_sizes(stream, columns, largest):
            memory_bytes += part_bytes
            if memory_bytes > largest:
                raise LabelsError(
                    f"{str(path)!r} has {size:,} bytes and unfolds to more than {memory_bytes:,}, which no sound file "
                    "does; write it again from where it comes from"
                )
    if whole:
        check_memory(path, memory_bytes)
    return memory_bytes


def largest_plausible_bytes(size: int) -> int:
    """Largest plausible size in memory, in bytes, of a file of ``size`` bytes."""
    return max(_ALWAYS_ALLOWED_BYTES, _LARGEST_EXPANSION * size)


def check_memory(path: Path, needed: int) -> None:
    """Refuse a table that needs more than half of the memory that this process could have.

    Raises:
        LabelsError: If ``needed``, in bytes, is more.
    """
    capacity = capacity_bytes()
    if needed > capacity // 2:
        raise LabelsError(
            f"{str(path)!r} takes {needed:,} bytes in memory, more than half of the {capacity:,} that there are for "
            "this process; take a part of its rows, or raise its limits (ulimit -v, cgroup), or take a larger machine"
        )


def _part_sizes(stream: BinaryIO, columns: Sequence[str] | None, largest: int) -> Iterator[int]:
    """Sizes in bytes that add up to the size in memory: first those of the pages, then those of repeated texts.

    Texts are counted in full where a column's dictionary might unfold to more than ``largest`` bytes.
    """
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
        pages = page_totals(stream, chunk)
        yield pages.decompressed_bytes + pages.values * _VALUE_BYTES.get(leaf.physical_type, leaf.length)
        if leaf.physical_type == "BYTE_ARRAY" and pages.dictionary_bytes * pages.from_dictionary > largest:
            flat = not leaf.max_repetition_level
            repeated[chunk.row_group, name] = pages.from_dictionary if flat else all_rows
    for (group, name), rows in repeated.items():
        yield from _text_sizes(stream.name, group, name, rows)


def _text_sizes(path: str, group: int, name: str, rows: int) -> Iterator[int]:
    """Sizes in bytes of the texts in the first ``rows`` rows of a column, summed batch by batch."""
    with pq.ParquetFile(path, read_dictionary=[name]) as file:
        for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=[name]):
            column = batch.column(0)
            if isinstance(column, pa.DictionaryArray):
                lengths = np.asarray(pc.fill_null(pc.binary_length(column.dictionary), 0)).astype(np.int64)
                yield int(lengths[np.asarray(column.indices.drop_null())].sum())
            rows -= len(batch)
            if rows <= 0:
                return
