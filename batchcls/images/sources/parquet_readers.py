"""Reading of slides that are rows of Parquet files."""

import errno
import os
from functools import lru_cache
from pathlib import Path
from threading import Lock

import pyarrow as pa

from batchcls.images.formats.refusal import RefusedError, check_file
from batchcls.images.servers.group_buffer import BUFFER_BYTES
from batchcls.images.sources.file_groups import FileGroupReader
from batchcls.images.sources.files import FileReader, FileReaders
from batchcls.images.sources.parquet_images import row_names
from batchcls.images.sources.parquet_rows import ParquetRows, present
from batchcls.images.sources.parquet_server import REFUSALS
from batchcls.images.sources.places import archive_of
from batchcls.records import Slide
from batchcls.storage.file_client import OpenFile
from batchcls.storage.timeouts import call_with_timeout

_SERVER = "batchcls.images.sources.parquet_server"
_INDEXED_FILES = 4
"""Number of Parquet files whose names are kept, for slides of which only the name is known."""
_LARGEST_ROW = 1 << 62
_KINDS = {number: kind for kind, number in REFUSALS.items()}


class ParquetReaders:
    """A `batchcls.images.sources.base.SlideReaders` for rows of Parquet files, which another process reads."""

    group_memory_bytes = BUFFER_BYTES

    def __init__(self) -> None:
        self._files = FileReaders(_SERVER)
        self._indexing = Lock()
        """Lock of the index of names, which one thread makes for all."""

    @property
    def peak_memory_bytes(self) -> int:
        return self._files.peak_memory_bytes

    def reader(self, timeout_s: float) -> "ParquetReader":
        return ParquetReader(self._files.reader(timeout_s), timeout_s, self._indexing)

    def group_reader(self, max_pixels: int) -> FileGroupReader:
        return self._files.group_reader(max_pixels, _place)

    def close(self) -> None:
        self._files.close()


class ParquetReader:
    """A `batchcls.images.sources.base.SlideReader` for rows of Parquet files.

    Args:
        files: Reader of the process that serves rows as files.
        timeout_s: How long the file system may take for one answer, and a search for a name in a Parquet file.
        indexing: Lock under which names are searched for.
    """

    def __init__(self, files: FileReader, timeout_s: float, indexing: Lock) -> None:
        self._files = files
        self._timeout_s = timeout_s
        self._indexing = indexing

    def open(self, slide: Slide) -> OpenFile:
        file, name = _file_and_name(slide)
        row = call_with_timeout(lambda: _row(slide, file, name, self._indexing), self._timeout_s)
        try:
            return self._files.open(Slide("", f"{file}\0{row}"))
        except OSError as error:
            if kind := _KINDS.get(error.errno or 0):
                raise RefusedError(kind, error.strerror or "") from error
            raise

    def close(self) -> None:
        self._files.close()


def read_row(slide: Slide, limit_bytes: int) -> bytes:
    """All bytes of a row's image, read by the calling thread.

    Raises:
        OSError: If the row cannot be read.
        RefusedError: If it has no bytes, is damaged, or has more than ``limit_bytes``.
    """
    file, name = _file_and_name(slide)
    row = _row(slide, file, name, Lock())
    rows = ParquetRows(file)
    try:
        value = present(rows.value(row))
    except IndexError as error:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), slide.file) from error
    finally:
        rows.close()
    check_file(len(value), limit_bytes, is_regular=True)
    return bytes(value)


def row_exists(slide: Slide) -> bool:
    """Whether a row of a slide's name is in its Parquet file."""
    try:
        _row(slide, *_file_and_name(slide), Lock())
    except (OSError, RefusedError):
        return False
    return True


def _file_and_name(slide: Slide) -> tuple[str, str]:
    """The Parquet file of a slide, and the slide's name in it.

    Raises:
        FileNotFoundError: If there is no such Parquet file.
    """
    if (archive := archive_of(slide)) is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), slide.file)
    return archive


def _place(slide: Slide) -> tuple[int, int, int]:
    """Length of a slide's name, its row, and the time of the listing, as `batchcls.images.sources.parquet_server` has
    them."""
    _, name = _file_and_name(slide)
    row = slide.offset if slide.offset is not None and 0 <= slide.offset < _LARGEST_ROW else _LARGEST_ROW
    return len(os.fsencode(name)), row, max(0, (slide.modified_ns or 0) // 1000)


def _row(slide: Slide, file: str, name: str, indexing: Lock) -> int:
    """The row of a slide: as listed, if the file has not changed since; or else searched for by its name.

    Raises:
        OSError: If there is none, or the file cannot be read.
        RefusedError: If the file is damaged.
    """
    status = os.stat(file)
    is_listed = slide.modified_ns is None or slide.modified_ns // 1000 == status.st_mtime_ns // 1000
    if slide.offset is not None and 0 <= slide.offset < _LARGEST_ROW and is_listed:
        return slide.offset
    with indexing:
        row = _index(file, status.st_size, status.st_mtime_ns).get(name)
    if row is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), slide.file)
    return row


@lru_cache(_INDEXED_FILES)
def _index(file: str, size_bytes: int, modified_ns: int) -> dict[str, int]:
    """The rows of a Parquet file by their names; kept until the file's size or time changes."""
    try:
        return {name: row for row, name in enumerate(row_names(Path(file)))}
    except (pa.ArrowException, ValueError, LookupError, RecursionError) as error:
        raise RefusedError("unreadable", "its Parquet file is damaged, or has no images") from error
