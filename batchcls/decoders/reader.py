"""Files become bytes whose header has been read: ahead of the decoder, by threads, within a budget."""

import os
import stat
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from nvidia import nvimgcodec

from batchcls.records import Failure, FailureKind, Slide

_BUDGET_BYTES = 256 << 20
"""The most that waits, read but not taken; a larger file still passes, alone."""
_LEAST_COST_BYTES = 64 << 10
"""What a small file or a failure counts for, so that their number is bounded too."""
_READERS = 8
"""Threads that mostly wait for a disk or a network."""
_LARGEST_PIXEL_BYTES = 8
"""Four channels of 16 bits: what an uncompressed file can hold for each pixel."""
_OVERHEAD_BYTES = 16 << 20
"""Room for headers, colour profiles and thumbnails."""

_READABLE = {
    b"\xff\xd8": "JPEG",
    b"\x89PNG": "PNG",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"RIFF": "WebP",
    b"\0\0\0\x0cjP": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
}
_UNREADABLE = {b"GIF8": "GIF", b"\xff\x0a": "JPEG XL", b"\0\0\0\x0cJXL": "JPEG XL", b"II+\0": "BigTIFF"}
_END_MARKS = {"jpeg": b"\xff\xd9", "png": b"IEND\xaeB`\x82"}


@dataclass(frozen=True, slots=True)
class Encoded:
    """A file's bytes, whose header the decoder understands."""

    slide: Slide
    data: npt.NDArray[np.uint8]
    """(bytes,) uint8."""
    width: int
    height: int
    suspect: bool
    """The mark that its format ends with is missing, so decoding it is likely to fail."""


class _Refused(Exception):
    """A file that no decoder need try; carries the arguments of its `Failure`."""

    def __init__(self, kind: FailureKind, reason: str, width: int | None = None, height: int | None = None) -> None:
        self.details = (kind, reason, width, height)


class _Closed(Exception):
    """Nobody wants to read on."""


class ReadAhead:
    """Reads slides in threads; iterate to get each as `Encoded` or `Failure`, in the order in which reads end.

    An exception of ``slides`` itself is raised from the iteration.
    """

    def __init__(self, slides: Iterable[Slide], max_pixels: int) -> None:
        self._slides = iter(slides)
        self._max_pixels = max_pixels
        self._taking = threading.Lock()
        self._changed = threading.Condition()
        self._ready: deque[tuple[Encoded | Failure, int]] = deque()
        self._reserved_bytes = 0
        self._running = _READERS
        self._closed = False
        self._error: BaseException | None = None
        for _ in range(_READERS):
            threading.Thread(target=self._read_all, name="reader", daemon=True).start()

    def __iter__(self) -> Iterator[Encoded | Failure]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ready or self._error or not self._running or self._closed)
                if self._error:
                    raise self._error
                if self._closed or not self._ready:
                    return
                item, cost = self._ready.popleft()
                self._reserved_bytes -= cost
                self._changed.notify_all()
            yield item

    def close(self) -> None:
        """Stop the threads and end every iteration."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _read_all(self) -> None:
        try:
            while (slide := self._next()) is not None:
                item, cost = self._read(slide)
                with self._changed:
                    self._ready.append((item, cost))
                    self._changed.notify_all()
        except _Closed:
            pass
        except BaseException as error:  # raised where the bytes are wanted
            self._error = error
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def _next(self) -> Slide | None:
        with self._taking:
            if self._closed or self._error:
                return None
            return next(self._slides, None)

    def _read(self, slide: Slide) -> tuple[Encoded | Failure, int]:
        cost = 0
        try:
            with open(os.open(slide.file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0) as stream:
                size = self._checked_size(os.fstat(stream.fileno()))
                cost = self._reserve(size)
                data = _read_fully(stream.fileno(), size)
            return _inspected(slide, data, self._max_pixels), cost
        except _Refused as refusal:
            return Failure(slide, *refusal.details), cost or self._reserve(0)
        except FileNotFoundError:
            return Failure(slide, "missing", "it is gone, or a link that leads nowhere"), cost or self._reserve(0)
        except OSError as error:
            return Failure(slide, "unreadable", error.strerror or str(error)), cost or self._reserve(0)

    def _checked_size(self, status: os.stat_result) -> int:
        if not stat.S_ISREG(status.st_mode):
            raise _Refused("not an image", "it is no regular file")
        if status.st_size == 0:
            raise _Refused("empty", "it has no bytes")
        if status.st_size > (limit := self._max_pixels * _LARGEST_PIXEL_BYTES + _OVERHEAD_BYTES):
            raise _Refused("too large", f"it has {status.st_size:,} bytes; --max-pixels allows for {limit:,}")
        return status.st_size

    def _reserve(self, size: int) -> int:
        cost = max(size, _LEAST_COST_BYTES)
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or not self._reserved_bytes or self._reserved_bytes + cost <= _BUDGET_BYTES
            )
            if self._closed:
                raise _Closed
            self._reserved_bytes += cost
        return cost


def _read_fully(descriptor: int, size: int) -> npt.NDArray[np.uint8]:
    """Up to ``size`` bytes; fewer if the file has shrunk meanwhile."""
    data = np.empty(size, np.uint8)
    done = 0
    while done < size and (count := os.readv(descriptor, [memoryview(data)[done:]])):
        done += count
    return data[:done]


def _inspected(slide: Slide, data: npt.NDArray[np.uint8], max_pixels: int) -> Encoded:
    """The file with what its header says, as the decoder's own parser reads it, before any pixel is decoded."""
    head = data[:16].tobytes()
    for magic, name in _UNREADABLE.items():
        if head.startswith(magic):
            raise _Refused("unsupported", f"{name} is not decoded; convert it to PNG")
    if head[4:8] == b"ftyp":
        raise _Refused("unsupported", "HEIC and AVIF are not decoded; convert it to PNG")
    try:
        stream = nvimgcodec.CodeStream(data)
        width, height, codec = stream.width, stream.height, stream.codec_name
    except RuntimeError as error:
        names = [name for magic, name in _READABLE.items() if head.startswith(magic)]
        if names:
            raise _Refused("corrupt", f"its {names[0]} header cannot be read") from error
        raise _Refused("not an image", f"it begins with {head[:8]!r}") from error
    if width <= 0 or height <= 0:
        raise _Refused("corrupt", f"its header says {width}x{height} pixels")
    if width * height > max_pixels:
        reason = f"{width}x{height} is {width * height:,} pixels; the limit is {max_pixels:,} (--max-pixels)"
        raise _Refused("too large", reason, *(side if side < 2**31 else None for side in (width, height)))
    if not _eight_bits(stream):
        # Decoders scale 16 bits to 8 in ways that differ by up to 254 of 255: such a probability would mean nothing.
        raise _Refused("unsupported", "its channels do not hold 8 bits each; convert it to 8 bits", width, height)
    mark = _END_MARKS.get(codec)
    suspect = mark is not None and mark not in data[-64:].tobytes()
    return Encoded(slide, data, width, height, suspect)


def _eight_bits(stream: nvimgcodec.CodeStream) -> bool:
    try:
        return bool(stream.dtype == np.uint8)
    except TypeError:  # NumPy has no name for what the header says
        return False
