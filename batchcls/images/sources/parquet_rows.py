"""The images in a column of a Parquet file, found by the number of their row."""

import os
import stat
from bisect import bisect_right
from collections import OrderedDict
from itertools import accumulate
from pathlib import Path
from threading import Lock

import pyarrow as pa
import pyarrow.parquet as pq

from batchcls.images.formats.refusal import RefusedError
from batchcls.images.sources.parquet_columns import image_leaf
from batchcls.storage.parquet_pages import Page, column_chunks, footer_bytes, pages
from batchcls.storage.parquet_values import UnsupportedPageError, Values, dictionary_values, page_values
from batchcls.storage.regular_file import IrregularError, open_regular

LARGEST_PAGE_BYTES = 1 << 30
"""Largest plausible size of a page, which is in memory as a whole."""
_KEPT_BYTES = 64 << 20
"""Bytes of pages that are kept after their values have been asked for, but for the last page."""
_LARGEST_FOOTER_BYTES = 64 << 20
_OPEN_FILES = 4
_DAMAGED = "its Parquet file is damaged"
_AGAIN = "write the Parquet file again, for instance by pyarrow"


class ParquetRows:
    """The image column of a Parquet file. Only the pages that hold the wanted rows are read.

    Raises:
        OSError: If the file cannot be opened.
        RefusedError: If it is damaged, or has no column of images.
    """

    def __init__(self, path: str) -> None:
        try:
            self._stream, status = open_regular(path)
        except IrregularError as error:
            raise RefusedError("unreadable", f"its Parquet file is none: {error}") from error
        self._size_bytes = status.st_size
        self.modified_ns = status.st_mtime_ns
        try:
            if footer_bytes(self._stream) > _LARGEST_FOOTER_BYTES:
                raise ValueError("a huge footer")
            chunks = list(column_chunks(self._stream))  # first, for it survives any damage
            with pq.ParquetFile(Path(path)) as file:
                leaf, self._levels = image_leaf(file)
        except (pa.ArrowException, ValueError, LookupError, RecursionError) as error:
            self.close()
            raise RefusedError("unreadable", f"{_DAMAGED}, or has no images") from error
        self._chunks = [chunk for chunk in chunks if chunk.column == leaf]
        self._ends = list(accumulate(chunk.values for chunk in self._chunks))
        """Number of rows up to the end of each row group."""
        self._pages: dict[int, tuple[list[Page], list[int]]] = {}
        """Data pages of row groups, and the number of rows up to the end of each."""
        self._dictionaries: dict[int, Values] = {}
        self._kept: OrderedDict[int, tuple[Values, int]] = OrderedDict()
        """Values and size of the pages that were used last, by their offsets."""
        self._reading = Lock()

    def value(self, row: int) -> memoryview | None:
        """The bytes of a row; None for null. Any thread may call this method.

        Raises:
            IndexError: If there is no such row.
            OSError: If the file cannot be read.
            RefusedError: If the page of the row is damaged, or in a form that is not read.
        """
        with self._reading:
            if not 0 <= row < (self._ends[-1] if self._ends else 0):
                raise IndexError(row)
            group = bisect_right(self._ends, row)
            below = row - (self._ends[group - 1] if group else 0)
            try:
                return self._value(group, below)
            except UnsupportedPageError as error:
                raise RefusedError(
                    "unsupported", f"its page is in a form that is not read ({error}); {_AGAIN}"
                ) from error
            except (ValueError, LookupError) as error:
                if isinstance(error, RefusedError):
                    raise
                raise RefusedError("corrupt", _DAMAGED) from error

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def _value(self, group: int, row: int) -> memoryview | None:
        data_pages, ends = self._pages_of(group)
        number = bisect_right(ends, row)
        page = data_pages[number]
        if page.offset not in self._kept:
            while self._kept and sum(size for _, size in self._kept.values()) + page.decompressed_bytes > _KEPT_BYTES:
                self._kept.popitem(last=False)
            self._kept[page.offset] = (self._values(group, page), page.decompressed_bytes)
        self._kept.move_to_end(page.offset)
        return self._kept[page.offset][0][row - (ends[number - 1] if number else 0)]

    def _pages_of(self, group: int) -> tuple[list[Page], list[int]]:
        if group not in self._pages:
            all_pages = list(pages(self._stream, self._chunks[group]))
            self._pages.clear()  # those of one row group are enough
            self._dictionaries.clear()
            for page in all_pages:
                if page.is_dictionary:
                    self._dictionaries[group] = dictionary_values(page, self._bytes(page), self._codec(group))
            data_pages = [page for page in all_pages if page.values]
            self._pages[group] = data_pages, list(accumulate(page.values for page in data_pages))
        return self._pages[group]

    def _values(self, group: int, page: Page) -> Values:
        dictionary = self._dictionaries.get(group)
        return page_values(page, self._bytes(page), self._codec(group), self._levels, dictionary)

    def _codec(self, group: int) -> int:
        return self._chunks[group].codec

    def _bytes(self, page: Page) -> bytes:
        if max(page.stored_bytes, page.decompressed_bytes) > LARGEST_PAGE_BYTES:
            reason = f"its page unfolds to {page.decompressed_bytes:,} bytes, of {LARGEST_PAGE_BYTES:,} at most"
            raise RefusedError("too large", f"{reason}; {_AGAIN}, in smaller row groups")
        if page.offset + page.stored_bytes > self._size_bytes:
            raise ValueError("a page ends behind the file")
        data = os.pread(self._stream.fileno(), page.stored_bytes, page.offset)
        if len(data) < page.stored_bytes:
            raise ValueError("the file ends within a page")
        return data


def present(value: memoryview | None) -> memoryview:
    """The bytes of a row.

    Raises:
        RefusedError: If it has none.
    """
    if value is None:
        raise RefusedError("missing", "its row of the Parquet file has no bytes")
    return value


class ParquetFiles:
    """The Parquet files that were used last, open; any thread may use them."""

    def __init__(self) -> None:
        self._opening = Lock()
        self._files: OrderedDict[tuple[str, int, int, int], ParquetRows] = OrderedDict()

    def open(self, path: str) -> ParquetRows:
        """The images of a file, as it is now; raises what `ParquetRows` raises."""
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise RefusedError("unreadable", "its Parquet file is none: it is no regular file")
        key = (path, status.st_ino, status.st_size, status.st_mtime_ns)
        with self._opening:
            if key not in self._files:
                self._files[key] = ParquetRows(path)
                if len(self._files) > _OPEN_FILES:
                    self._files.popitem(last=False)  # closed once no thread reads it any more
            self._files.move_to_end(key)
            return self._files[key]
