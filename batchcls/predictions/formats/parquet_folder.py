"""Predictions folders: Parquet files of at most so many rows, which are one table in the order of their names."""

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from batchcls.errors import OutputError
from batchcls.predictions.formats import parquet_file
from batchcls.predictions.formats.parquet_file import OpenParquet
from batchcls.records import METADATA_KEY
from batchcls.storage.file_or_object import opened_for_reading
from batchcls.storage.file_set import check_replaceable_folder, file_name, numbered_files
from batchcls.storage.owned_folder import OwnedFolder
from batchcls.storage.parquet_pages import footer_bytes
from batchcls.storage.table_memory import check_memory, check_parquet_size

ROWS_PER_FILE_KEY = "rows_per_file"
"""Key of a run's identity under which the most rows of a file stand, if the run writes a folder."""


class OpenFolder:
    """A predictions folder, open for reading.

    Args:
        path: The folder.

    Raises:
        ValueError: If it holds no predictions.
    """

    def __init__(self, path: Path) -> None:
        self._files = numbered_files(path)
        if not self._files:
            raise ValueError(f"it is a folder without files such as {file_name(0)!r}")
        with _opened_file(self._files[0]) as first:
            self._schema, self._record = first.schema, first.record

    @property
    def schema(self) -> pa.Schema:
        return self._schema

    @property
    def record(self) -> Mapping[str, Any]:
        return self._record

    @property
    def labels(self) -> tuple[str, ...]:
        return ()

    def is_as_written(self) -> bool:
        rows = 0
        for number, path in enumerate(self._files):
            with _opened_file(path) as file:
                if path.name != file_name(number) or not file.schema.equals(self._schema, check_metadata=True):
                    return False
                rows += file.rows
        return bool(self._record["counts"]["rows"] == rows)

    def table(self, columns: Sequence[str]) -> pa.Table:
        tables = []
        for path in self._files:
            with _opened_file(path) as file:
                tables.append(file.table(columns))
        return pa.concat_tables(tables)

    def batches(self, rows: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        for path in self._files:
            with _opened_file(path) as file:
                yield from file.batches(rows, columns)


@contextmanager
def opened(path: Path | str, stream: BinaryIO | None = None) -> Iterator[OpenFolder]:
    """A context that yields a predictions folder; see `ReadableFormat.opened`."""
    yield OpenFolder(Path(path))


def check_size(path: Path, columns: Sequence[str], *, whole: bool) -> None:
    """Refuse a folder that would take too much memory; see `ReadableFormat.check_size`."""
    sizes = [check_parquet_size(file, columns, whole=False) for file in numbered_files(path)]
    if whole:
        check_memory(path, sum(sizes))


def check_replaceable(path: Path) -> None:
    """Refuse to replace a folder that holds anything but files that a run wrote; none there is fine.

    Raises:
        OutputError: If there is a file that no run wrote.
    """
    check_replaceable_folder(path)
    for file in numbered_files(path) if path.exists() else []:
        if not _has_record(file):
            raise OutputError(
                f"{str(file)!r} is a file that batchcls did not write; nothing was touched: move it away, or choose "
                "another --out"
            )


def rows_of_each_file(identity: Mapping[str, Any]) -> int | None:
    """The most rows of a file of the folder that a run of this identity writes; None if it writes one file."""
    rows = identity.get(ROWS_PER_FILE_KEY)
    return rows if type(rows) is int and rows > 0 else None


def write(
    folder: OwnedFolder, rows: Iterable[pa.Table], labels: Sequence[str], record: Mapping[str, Any], most_rows: int
) -> None:
    """Write the files of a predictions folder, each with the record of the run.

    Args:
        rows: The rows, in groups, with the columns of `batchcls.predictions.schema`.
        labels: Labels in the order of the probabilities.
        record: The record of the run; JSON values.
        most_rows: Rows of each file but the last.
    """
    for number, groups in enumerate(_by_file(iter(rows), most_rows)):
        with folder.writing(file_name(number)) as stream:
            parquet_file.write(stream, groups, labels, record)


def _by_file(tables: Iterator[pa.Table], most_rows: int) -> Iterator[Generator[pa.Table]]:
    """The tables of each file, which have to be taken before those of the next file."""
    rest = next(tables, None)

    def of_one_file() -> Generator[pa.Table]:
        nonlocal rest
        room = most_rows
        while rest is not None and room:
            table = rest.slice(0, room)
            room -= len(table)
            rest = rest.slice(len(table)) if len(table) < len(rest) else next(tables, None)
            yield table

    while rest is not None:
        yield of_one_file()


@contextmanager
def _opened_file(path: Path) -> Iterator[OpenParquet]:
    with opened_for_reading(path, follows_links=True) as stream, parquet_file.opened(path, stream) as file:
        yield file


def _has_record(path: Path) -> bool:
    """Whether the footer of a Parquet file has the key of a run's record; nothing else is looked at."""
    try:
        with opened_for_reading(path) as stream:
            length = footer_bytes(stream)
            stream.seek(max(0, stream.seek(0, 2) - 8 - length))
            return METADATA_KEY in stream.read(length)
    except OSError:
        return False
