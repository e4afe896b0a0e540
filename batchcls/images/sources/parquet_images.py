"""Parquet files that hold images as bytes, as a source of slides; Hugging Face writes such files."""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from batchcls.errors import LabelsError, SlidesError
from batchcls.images.sources.base import NOTHING_KEPT, Source, SourceOptions
from batchcls.images.sources.parquet_columns import has_images as has_images
from batchcls.images.sources.parquet_columns import name_column
from batchcls.records import Slide
from batchcls.storage.regular_file import check_regular
from batchcls.storage.table_memory import check_parquet_size

_BATCH_ROWS = 8192
_BUFFER_BYTES = 1 << 20
_LONGEST_NAME = 4096
_MOST_ROWS_PER_BYTE = 64
_LIKE_OURS = re.compile(r"row-\d")
_DAMAGED = (pa.ArrowException, LabelsError, OSError, ValueError, LookupError, RecursionError)


class ParquetImages:
    """A `batchcls.images.sources.base.Source` of the images in one Parquet file, in the order of its rows.

    A slide is named by the row's own name, if the file has a column of names and no other row has the same one. The
    column of images is not read.

    Args:
        path: The Parquet file.

    Raises:
        SlidesError: If the file is damaged, would take more memory than a sound one, or has no column of images.
    """

    kept = NOTHING_KEPT

    def __init__(self, path: Path) -> None:
        self.count = 0
        self.complete = False
        self.skipped: Counter[str] = Counter()
        self.unlisted: list[str] = []
        self.roots = (str(path.parent),)
        self._path = path
        self._closed = False
        try:
            check_regular(path)
            with pq.ParquetFile(path) as file:
                column, rows = name_column(file.schema_arrow), file.metadata.num_rows
            if rows > _MOST_ROWS_PER_BYTE * path.stat().st_size:
                raise ValueError(f"it has {path.stat().st_size:,} bytes, and claims {rows:,} rows")
            if column:
                check_parquet_size(path, [column.partition(".")[0]], whole=False)
        except _DAMAGED as error:
            raise SlidesError(f"{str(path)!r} cannot be read as a Parquet file of images: {error}") from error

    def __iter__(self) -> Iterator[Slide]:
        root, name = self.roots[0], self._path.name
        try:
            modified_ns = self._path.stat().st_mtime_ns
            for row, image in enumerate(row_names(self._path)):
                if self._closed:
                    return
                self.count = row + 1
                yield Slide(root, f"{name}/{image}", None, modified_ns, row)
        except _DAMAGED as error:
            self.unlisted.append(f"{self._path}: {error}")
        self.complete = True

    def waiting(self) -> tuple[str, float] | None:
        return None

    def close(self) -> None:
        self._closed = True


def open_images(path: Path, options: SourceOptions) -> Source:
    """The images in a Parquet file for whose schema `has_images` is true.

    Raises:
        SlidesError: If the file cannot be used, or columns of it are to be kept.
    """
    if options.keep:
        raise SlidesError(
            f"--keep {options.keep[0]}: {str(path)!r} holds the images themselves, and columns of such files are not "
            "carried on; join them to the predictions by the row's name"
        )
    return ParquetImages(path)


def row_names(path: Path) -> Iterator[str]:
    """The name of each row, which no other row of the file has, and which is the same each time.

    It is the row's own name if that is a usual one; and ``row-00000012``, with its own name behind a slash, if not.

    Raises:
        ArrowException, OSError, ValueError: If the file is damaged.
    """
    with pq.ParquetFile(path) as file:
        column, rows = name_column(file.schema_arrow), file.metadata.num_rows
    if column is None:
        yield from (f"row-{row:08}" for row in range(rows))
        return
    digests = np.concatenate([_digests(names) for names in _own_names(path, column)] or [np.empty(0, np.uint64)])
    unique, counts = np.unique(digests, return_counts=True)
    doubled = unique[counts > 1]
    row = 0
    for names in _own_names(path, column):
        is_doubled = np.isin(_digests(names), doubled)
        for name, again in zip(names, is_doubled.tolist(), strict=True):
            if not name:
                yield f"row-{row:08}"
            else:
                yield f"row-{row:08}/{name}" if again or _LIKE_OURS.match(name) else name
            row += 1


def _own_names(path: Path, column: str) -> Iterator[Sequence[str]]:
    """The names that rows have in a column, some at a time; empty where there is none that can be used."""
    # Without pre_buffer, pyarrow reads a row group page by page, instead of all of it at once.
    with pq.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False) as file:
        for group in range(file.num_row_groups):
            for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=[column]):
                values = batch.column(0)
                if pa.types.is_struct(values.type):
                    values = values.flatten()[0]  # null where the struct is
                yield [_usable(value) for value in _texts(values)]


def _texts(values: pa.Array) -> Sequence[str | None]:
    if pa.types.is_integer(values.type):
        return [None if value is None else str(value) for value in values.to_pylist()]
    # Not as texts, for a hostile file may have others than UTF-8 in them.
    return [value if value is None else os.fsdecode(value) for value in values.cast(pa.large_binary()).to_pylist()]


def _usable(name: str | None) -> str:
    """A name without what the names of files cannot have; empty if nothing is left, or it is too long for one."""
    name = (name or "").replace("\0", "")
    return name if len(name) <= _LONGEST_NAME else ""


def _digests(names: Sequence[str]) -> npt.NDArray[np.uint64]:
    """(names,) a number for each name; equal ones for equal names, and hardly ever for others."""
    packed = b"".join([blake2b(os.fsencode(name), digest_size=8).digest() for name in names])
    return np.frombuffer(packed, np.uint64)
