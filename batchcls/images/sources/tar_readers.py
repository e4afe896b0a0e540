"""Reading of slides that are members of tar files."""

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock

from batchcls.images.formats.refusal import RefusedError, check_file
from batchcls.images.servers.group_buffer import BUFFER_BYTES
from batchcls.images.servers.tar_members import UNKNOWN_SIZE
from batchcls.images.sources.file_groups import FileGroupReader
from batchcls.images.sources.files import FileReader, FileReaders
from batchcls.images.sources.places import archive_of
from batchcls.images.sources.tar_images import add_to_index
from batchcls.images.sources.tar_source import SPARSE_REFUSED
from batchcls.records import Slide
from batchcls.storage.regular_file import IrregularError, open_regular
from batchcls.storage.tar_headers import (
    BLOCK_BYTES,
    SPARSE,
    UNKNOWN_TIME,
    Member,
    Pread,
    TarError,
    is_header_of,
    members,
    stored_size,
)
from batchcls.storage.timeouts import call_with_timeout
from batchcls.storage.transient_errors import ARCHIVE_ENDS

_FIRST_BYTES = 256 << 10
_INDEXED_TARS = 4
"""Number of tar files whose names are kept, for slides of which only the name is known."""
_LARGEST_OFFSET = 1 << 62


@dataclass(frozen=True, slots=True)
class OpenMember:
    """A `batchcls.images.sources.base.OpenSlide` in a tar file."""

    pread: Pread
    """Reads the tar file."""
    offset: int
    """Offset of the first byte in the tar file."""
    size_bytes: int
    modified_ns: int | None
    first_bytes: bytes
    is_regular: bool = True

    def read(self, offset: int, length: int) -> bytes:
        """Bytes from ``offset`` on; fewer than ``length`` only where the member ends."""
        if offset == 0 and length == len(self.first_bytes):
            return self.first_bytes
        return self.pread(self.offset + offset, max(0, min(length, self.size_bytes - offset)))


class TarReaders:
    """A `batchcls.images.sources.base.SlideReaders` for members of tar files, which another process reads."""

    group_memory_bytes = BUFFER_BYTES

    def __init__(self) -> None:
        self._files = FileReaders()
        self._indexing = Lock()
        """Lock of the index of names, which one thread makes for all."""

    @property
    def peak_memory_bytes(self) -> int:
        return self._files.peak_memory_bytes

    def reader(self, timeout_s: float) -> "TarReader":
        def find(tar: str, name: bytes) -> Member | None:
            with self._indexing:
                return call_with_timeout(lambda: _find(tar, name), timeout_s)

        return TarReader(self._files.reader(timeout_s), find)

    def group_reader(self, max_pixels: int) -> FileGroupReader:
        return self._files.group_reader(max_pixels, place_of_member)

    def close(self) -> None:
        self._files.close()


class TarReader:
    """A `batchcls.images.sources.base.SlideReader` for members of tar files.

    Args:
        files: Reader of the tar files.
        find: Searches a tar file for a name.
    """

    def __init__(self, files: FileReader, find: Callable[[str, bytes], Member | None]) -> None:
        self._files = files
        self._find = find
        self._tar = ""
        """Tar file that is open; empty if there is none."""

    def open(self, slide: Slide) -> OpenMember:
        tar, name = _tar_and_name(slide)
        if tar != self._tar:
            self._tar = ""
            self._file = self._files.open(Slide("", tar))
            self._tar = tar
        return open_member(slide, name, self._file.size_bytes, self._file.read, lambda: self._find(tar, name))

    def close(self) -> None:
        self._files.close()


def read_member(slide: Slide, limit_bytes: int) -> bytes:
    """All bytes of a member, read by the calling thread.

    Raises:
        OSError: If the member cannot be read.
        RefusedError: If it is empty, is cut, or has more than ``limit_bytes``.
    """
    tar, name = _tar_and_name(slide)
    try:
        stream, status = open_regular(tar)
    except IrregularError as error:
        raise RefusedError("not an image", str(error)) from error
    with stream:
        file = open_member(slide, name, status.st_size, _pread_of(stream.fileno()), lambda: _find(tar, name))
        check_file(file.size_bytes, limit_bytes, is_regular=True)
        return file.read(0, file.size_bytes)


def member_exists(slide: Slide) -> bool:
    """Whether a member is in its tar file; True as well if the file system reports a timeout."""
    try:
        return _find(*_tar_and_name(slide)) is not None
    except TimeoutError:
        return True
    except (OSError, ValueError):
        return False


def open_member(
    slide: Slide, name: bytes, tar_bytes: int, pread: Pread, find: Callable[[], Member | None]
) -> OpenMember:
    """A member of an open tar file, at its offset if that is known and the member's header precedes it.

    Args:
        name: Name of the member.
        tar_bytes: Size of the tar file.
        pread: Reads the tar file.
        find: Searches the tar file for the name.

    Raises:
        FileNotFoundError: If there is no member of that name.
        RefusedError: If the tar file ends within the member, or holds it in another form.
    """
    offset, size = slide.offset or 0, slide.size_bytes
    if size is None and BLOCK_BYTES <= offset <= _LARGEST_OFFSET:
        with suppress(ValueError):
            size = stored_size(pread(offset - BLOCK_BYTES, BLOCK_BYTES))
    if size is not None and BLOCK_BYTES <= offset <= _LARGEST_OFFSET:
        data = pread(offset - BLOCK_BYTES, BLOCK_BYTES + min(max(size, 0), _FIRST_BYTES))
        if is_header_of(data[:BLOCK_BYTES], name, size):
            _check_whole(offset + size, tar_bytes)
            return OpenMember(pread, offset, size, slide.modified_ns, data[BLOCK_BYTES:])
    member = find()
    if member is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), slide.file)
    if member.kind == SPARSE:
        raise RefusedError("unreadable", SPARSE_REFUSED)
    _check_whole(member.offset + member.size_bytes, tar_bytes)
    modified_ns = None if member.modified_ns == UNKNOWN_TIME else member.modified_ns
    first_bytes = pread(member.offset, min(member.size_bytes, _FIRST_BYTES))
    return OpenMember(pread, member.offset, member.size_bytes, modified_ns, first_bytes)


def _check_whole(end: int, tar_bytes: int) -> None:
    if end > tar_bytes:
        raise RefusedError(
            "unreadable",
            f"{ARCHIVE_ENDS} {end - tar_bytes:,} bytes before it does; it has been cut, or is being written",
        )


def _tar_and_name(slide: Slide) -> tuple[str, bytes]:
    """The tar file of a slide, and the slide's name in it.

    Raises:
        FileNotFoundError: If there is no such tar file.
    """
    if (archive := archive_of(slide)) is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), slide.file)
    return archive[0], os.fsencode(archive[1])


def place_of_member(slide: Slide) -> tuple[int, int, int]:
    """Length of a member's name, and offset and size of its data, as `batchcls.images.servers.tar_members` has them."""
    _, name = _tar_and_name(slide)
    offset, size = slide.offset or 0, UNKNOWN_SIZE if slide.size_bytes is None else slide.size_bytes
    is_known = BLOCK_BYTES <= offset <= _LARGEST_OFFSET and 0 < size <= UNKNOWN_SIZE
    return (len(name), offset, size) if is_known else (len(name), 0, 0)


def _find(tar: str, name: bytes) -> Member | None:
    """The last member of a name in a tar file, searched for by the calling thread."""
    status = os.stat(tar)
    return _index(tar, status.st_size, status.st_mtime_ns).get(name)


@lru_cache(_INDEXED_TARS)
def _index(tar: str, size_bytes: int, modified_ns: int) -> dict[bytes, Member]:
    """The files in a tar file by name, as far as it can be listed; kept until its size or time changes."""
    index: dict[bytes, Member] = {}
    try:
        stream, _ = open_regular(tar)
    except IrregularError:
        return index
    with stream, suppress(TarError):
        add_to_index(index, members(_pread_of(stream.fileno()), size_bytes))
    return index


def _pread_of(descriptor: int) -> Pread:
    """A function that reads an open file."""

    def pread(offset: int, length: int) -> bytes:
        data = os.pread(descriptor, length, offset)
        while len(data) < length and (more := os.pread(descriptor, length - len(data), offset + len(data))):
            data += more  # one call reads 2 GiB at most
        return data

    return pread
