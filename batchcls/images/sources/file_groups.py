"""Reading of groups of slides in files, by another process, into memory that both processes share."""

import mmap
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache

from batchcls.images.formats.inspection import Header
from batchcls.images.servers.group_buffer import (
    BUFFER_BYTES,
    DATA_AT,
    FORMATS,
    LARGEST_FILE_BYTES,
    NO_ROOM,
    NOT_BEGUN,
    READY,
    GroupBuffer,
)
from batchcls.images.servers.group_server import GROUP_REQUEST, PLACE
from batchcls.images.sources.base import GroupResult
from batchcls.records import Slide
from batchcls.storage.confined_files import confined_path
from batchcls.storage.file_client import FileProcess

PlaceOf = Callable[[Slide], tuple[int, int, int]]
_MOST_PIXELS = 1 << 62
"""Largest limit on an image's pixels that a request holds."""


def path_to_open(slide: Slide, base: str = "") -> str:
    """The path of a slide's file for `batchcls.storage.confined_files.open_confined`.

    Args:
        base: Folder of relative paths; empty: the working folder.
    """
    file = os.path.join(base, slide.file)
    return file if slide.within is None else confined_path(os.path.join(base, slide.within), file)


class FileGroupReader:
    """A `batchcls.images.sources.base.GroupReader` for files, and for slides in archives.

    Args:
        process: Runs `batchcls.images.servers.group_server`.
        max_pixels: Largest number of pixels of an image in a group.
        base: Folder of relative paths; empty: the one that the process was started in.
        place_of: Returns a slide's place in its archive: the length in bytes of the slide's name there, and the numbers
            that the server finds the slide by. None for slides that are files.

    Raises:
        DecoderError: If the process has ended.
        OSError: If the system has no more memory or files for another buffer.
    """

    def __init__(
        self,
        process: FileProcess,
        max_pixels: int,
        base: str = "",
        place_of: PlaceOf | None = None,
    ) -> None:
        self._base = base
        self._place_of = place_of
        self._ended_error = process.ended_error
        self._max_pixels = min(max_pixels, _MOST_PIXELS)  # where the limit is larger, the file is judged alone
        self._slides: Sequence[Slide] = ()
        memory = os.memfd_create("slides")
        try:
            os.ftruncate(memory, BUFFER_BYTES)
            self._memory = mmap.mmap(memory, BUFFER_BYTES)
            self._buffer = GroupBuffer(self._memory)
            self._socket = process.connect(memory)
        finally:
            os.close(memory)

    @property
    def times_s(self) -> tuple[float, float]:
        cpu_s, wall_s = self._buffer.times_s
        return cpu_s, wall_s

    def fileno(self) -> int:
        return self._socket.fileno()

    def start(self, slides: Sequence[Slide], largest_bytes: int) -> None:
        self._slides = slides
        self._buffer.progress[0], self._buffer.progress[1] = NOT_BEGUN, len(slides)
        paths = os.fsencode("\0".join([self._path(slide) for slide in slides]))
        places = b"".join([PLACE.pack(*self._place_of(slide)) for slide in slides]) if self._place_of else b""
        limits = min(largest_bytes, LARGEST_FILE_BYTES), self._max_pixels
        try:
            self._socket.sendall(GROUP_REQUEST.pack(len(paths), len(places), *limits) + paths + places)
        except OSError as error:
            raise self._ended_error() from error

    def _path(self, slide: Slide) -> str:
        return os.path.join(self._base, slide.file) if self._place_of else path_to_open(slide, self._base)

    def position(self) -> int | None:
        position = self._buffer.progress[0]
        return position if position < len(self._slides) else None

    def cut(self, position: int) -> None:
        self._buffer.progress[1] = position + 1
        with suppress(OSError):  # a kernel that cannot give the memory back before the end
            self._memory.madvise(mmap.MADV_REMOVE, DATA_AT, BUFFER_BYTES - DATA_AT)

    def result(self) -> GroupResult:
        try:
            answer = self._socket.recv(1)
        except OSError as error:
            raise self._ended_error() from error
        if not answer:
            raise self._ended_error()
        result = GroupResult([], [], [])
        data = self._buffer.data
        for slide, record in zip(self._slides, self._buffer.records.tolist(), strict=False):
            state, format_, suspect, plain, width, height, offset, length, decode_bytes, modified_ns = record
            if state == READY:
                header = _header(FORMATS[format_], width, height, suspect, plain, decode_bytes)
                if modified_ns or not self._place_of:  # else the listing of the archive has told both
                    slide = Slide(slide.root, slide.path, length, modified_ns, None, slide.kept, slide.digest)
                elif slide.size_bytes is None:
                    slide = replace(slide, size_bytes=length, modified_ns=modified_ns or slide.modified_ns)
                result.read.append((slide, data[offset : offset + length], header))
            else:
                (result.again if state == NO_ROOM else result.alone).append(slide)
        return result

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@lru_cache(1024)  # the images of one camera have one header
def _header(format_: str, width: int, height: int, suspect: bool, plain_jpeg: bool, decode_bytes: int) -> Header:
    return Header(format_, width, height, suspect, plain_jpeg, decode_bytes)
