"""Lists of images: text with a path or URL on each line, or before each zero byte, as `find -print0` writes it."""

import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from itertools import chain
from time import monotonic

import pyarrow as pa

from batchcls.errors import SlidesError
from batchcls.images.sources.base import NOTHING_KEPT, SourceOptions
from batchcls.images.sources.fetched_file import FetchedFile
from batchcls.images.sources.listed_slides import ListedSlides, base_of, roots_of
from batchcls.images.sources.places import Place
from batchcls.records import Slide
from batchcls.storage.regular_file import IrregularError, open_regular
from batchcls.storage.urls import is_url

STANDARD_INPUT = "-"
_BLOCK_BYTES = 1 << 20
_LONGEST_ENTRY = 1 << 16
"""Largest length of an entry in bytes; the longest path that Linux takes in one call has 4,095."""
_UTF8_MARK = b"\xef\xbb\xbf"
_NO_LISTS = {
    b"\xff\xfe": "is in UTF-16; save it as UTF-8",
    b"\xfe\xff": "is in UTF-16; save it as UTF-8",
    b"\x1f\x8b": "is compressed; unpack it first, or send it through standard input: zcat FILE | batchcls run -",
    b"PK\x03\x04": "is a spreadsheet or a ZIP file; save the list as text, with a path on each line",
    b"PAR1\x15": "is a Parquet file; name it without the @, and it is read as a table",
}
"""Reason why a file is no list, by its first bytes."""


class PathListSource:
    """A `batchcls.images.sources.base.Source` of the images that a file, or standard input, lists.

    Entries end with a line feed, or all with a zero byte if the first one does. They come in the order of the list.

    Args:
        place: ``-`` for standard input, or ``@`` and the path of the file.
        options: How to list.

    Raises:
        SlidesError: If there is no such file, or it is no list.
    """

    def __init__(self, place: Place, options: SourceOptions) -> None:
        self.count = 0
        self.complete = False
        self.skipped: Counter[str] = Counter()
        self.unlisted: list[str] = []
        self._name = str(place)
        self._waiting: float | None = None
        file = None if place == STANDARD_INPUT else self._name.removeprefix("@")
        self._listed = ListedSlides(base_of(file, options), allow_remote=options.allow_remote)
        self._descriptor = _standard_input() if file is None else _open_file(self._name, file, options.timeout_s)

    @property
    def kept(self) -> pa.Schema:
        """No columns: a list has none."""
        return NOTHING_KEPT

    @property
    def roots(self) -> tuple[str, ...]:
        return roots_of([self._listed])

    def __iter__(self) -> Iterator[Slide]:
        return chain.from_iterable(self.chunks())

    def chunks(self) -> Iterator[Sequence[Slide]]:
        """The slides of each block of the list."""
        for entries in self._entries():
            slides = [self._listed.slide(os.fsdecode(entry)) for entry in entries if not _is_blank(entry)]
            self.count += len(slides)
            self.skipped["empty line"] += len(entries) - len(slides)
            yield slides
        self.complete = True

    def waiting(self) -> tuple[str, float] | None:
        since = self._waiting
        return None if since is None else (self._name, monotonic() - since)

    def close(self) -> None:
        if self._descriptor > 0:  # standard input is not ours to close
            with suppress(OSError):
                os.close(self._descriptor)
        self._descriptor = -1

    def _entries(self) -> Iterator[list[bytes]]:
        """The entries of each block, without what ends them."""
        rest = self._read()
        if reason := next((reason for mark, reason in _NO_LISTS.items() if rest.startswith(mark)), None):
            raise SlidesError(f"{self._name!r} {reason}")
        rest = rest.removeprefix(_UTF8_MARK)
        while b"\0" not in rest and b"\n" not in rest and (more := self._read()):
            rest = self._checked(rest + more, 1, b"")
        # The name before the first zero byte may hold line feeds.
        end = b"\0" if b"\0" in rest[: _LONGEST_ENTRY + 1] else b"\n"
        number, block = 0, rest
        while block:
            *entries, rest = rest.split(end)
            yield [self._checked(entry, number + position, end) for position, entry in enumerate(entries, 1)]
            number += len(entries)
            self._checked(rest, number + 1, end)
            block = self._read()
            rest += block
        if rest:
            yield [self._checked(rest, number + 1, end)]

    def _checked(self, entry: bytes, number: int, end: bytes) -> bytes:
        if len(entry) > _LONGEST_ENTRY:
            raise SlidesError(
                f"entry {number:,} of the list {self._name!r} has more than {_LONGEST_ENTRY:,} bytes; write one path "
                "on each line, or end each with a zero byte (find -print0)"
            )
        return entry.removesuffix(b"\r") if end == b"\n" else entry

    def _read(self) -> bytes:
        self._waiting = monotonic()
        try:
            return os.read(self._descriptor, _BLOCK_BYTES)
        except OSError as error:
            raise SlidesError(f"the list {self._name!r} cannot be read: {error.strerror}") from error
        finally:
            self._waiting = None


def _is_blank(entry: bytes) -> bool:
    return not entry or entry.isspace()


def _standard_input() -> int:
    if sys.stdin is None:
        raise SlidesError("'-' names standard input, and this program has none; name a list: @FILE")
    return 0


def _open_file(name: str, file: str, timeout_s: float) -> int:
    """An open descriptor of a list."""
    if is_url(file):
        with closing(FetchedFile(file, timeout_s)) as copy:
            return os.open(copy.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        stream, _ = open_regular(file)
    except IrregularError as error:
        raise SlidesError(
            f"{name!r}: {file!r} is no regular file; name a list of paths, or send it through standard input: "
            "batchcls run -"
        ) from error
    except (OSError, ValueError) as error:
        raise SlidesError(f"the list {name!r} cannot be opened: {_reason(error)}") from error
    with stream:
        return os.dup(stream.fileno())


def _reason(error: OSError | ValueError) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)
