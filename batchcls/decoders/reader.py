"""Files become bytes whose header has been read: ahead of the decoder, by threads, within a budget."""

import os
import stat
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue

import numpy as np
import numpy.typing as npt
from nvidia import nvimgcodec

from batchcls.records import Failure, FailureKind, Slide

_BUDGET_BYTES = 256 << 20
"""The most that waits, read but not taken; a larger file still passes, alone."""
_LEAST_COST_BYTES = 64 << 10
"""What a small file or a failure counts for, so that their number is bounded too."""
_READERS = 32
"""Threads that mostly wait: enough to hide 5 ms a file on a network, up to 6,000 files a second."""
_READS_AHEAD = 256
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
_SCAN = b"\xff\xda"
_MOST_SCANS = 1000
"""Thousands of scans of a few bytes each make libjpeg work for hours. The limit leaves room for what looks like one in
a colour profile, or in a film that a camera has appended. Source: https://cure53.de/pentest-report_libjpeg-turbo.pdf."""
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
    plain_jpeg: bool
    """A JPEG in grey or colour, which libjpeg-turbo decodes to RGB."""


_Read = tuple[Encoded | Failure, int]
"""What became of a file, and the bytes of the budget that it holds."""


class _RefusedError(Exception):
    """A file that no decoder need try; carries what its `Failure` says."""

    def __init__(self, kind: FailureKind, reason: str, width: int | None = None, height: int | None = None) -> None:
        super().__init__(kind, reason)
        self.details = (kind, reason, width, height)


class _ClosedError(Exception):
    """Nobody wants to read on."""


class ReadAhead:
    """Reads slides in threads; iterate once to get each as `Encoded` or `Failure`, in the order in which reads end.

    An exception of ``slides`` itself is raised from the iteration.
    """

    def __init__(self, slides: Iterable[Slide], max_pixels: int) -> None:
        self._slides = iter(slides)
        self._max_pixels = max_pixels
        self._taking = threading.Lock()
        self._changed = threading.Condition()
        self._reserved_bytes = 0
        self._closed = False
        self._pool = ThreadPoolExecutor(_READERS, thread_name_prefix="reader")
        self._done: SimpleQueue[Future[_Read | None]] = SimpleQueue()

    def __iter__(self) -> Iterator[Encoded | Failure]:
        in_flight = 0
        while in_flight < _READS_AHEAD and self._submit():
            in_flight += 1
        while in_flight:
            done = self._done.get()
            if self._closed:
                return
            read = done.result()
            in_flight -= 1
            if read is None:
                continue
            item, cost = read
            self._release(cost)
            in_flight += self._submit()
            yield item

    def close(self) -> None:
        """End the iteration, which may be going on in another thread, and the reading."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._done.put(Future())  # wakes the iteration, if it waits

    def _submit(self) -> bool:
        with self._changed:
            if self._closed:
                return False
            self._pool.submit(self._read_next).add_done_callback(self._done.put)
        return True

    def _read_next(self) -> _Read | None:
        """One more slide, read; None if there are no more, or nobody wants them."""
        with self._taking:
            slide = None if self._closed else next(self._slides, None)
        try:
            return None if slide is None else self._read(slide)
        except _ClosedError:
            return None

    def _read(self, slide: Slide) -> _Read:
        cost = 0
        try:
            with open(os.open(slide.file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0) as stream:
                size = self._checked_size(os.fstat(stream.fileno()))
                cost = self._reserve(size)
                data = _read_fully(stream.fileno(), size)
            return _inspected(slide, data, self._max_pixels), cost
        except _RefusedError as refusal:
            return Failure(slide, *refusal.details), cost or self._reserve(0)
        except FileNotFoundError:
            return Failure(slide, "missing", "it is gone, or a link that leads nowhere"), cost or self._reserve(0)
        except OSError as error:
            return Failure(slide, "unreadable", error.strerror or str(error)), cost or self._reserve(0)

    def _checked_size(self, status: os.stat_result) -> int:
        if not stat.S_ISREG(status.st_mode):
            raise _RefusedError("not an image", "it is no regular file")
        if status.st_size == 0:
            raise _RefusedError("empty", "it has no bytes")
        if status.st_size > (limit := self._max_pixels * _LARGEST_PIXEL_BYTES + _OVERHEAD_BYTES):
            raise _RefusedError("too large", f"it has {status.st_size:,} bytes; --max-pixels allows for {limit:,}")
        return status.st_size

    def _reserve(self, size: int) -> int:
        cost = max(size, _LEAST_COST_BYTES)
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or not self._reserved_bytes or self._reserved_bytes + cost <= _BUDGET_BYTES
            )
            if self._closed:
                raise _ClosedError
            self._reserved_bytes += cost
        return cost

    def _release(self, cost: int) -> None:
        with self._changed:
            self._reserved_bytes -= cost
            self._changed.notify_all()


def _read_fully(descriptor: int, size: int) -> npt.NDArray[np.uint8]:
    """Up to ``size`` bytes; fewer if the file has shrunk meanwhile."""
    data = np.empty(size, np.uint8)
    done = 0
    while done < size and (count := os.readv(descriptor, [data[done:].data])):
        done += count
    return data[:done]


def _inspected(slide: Slide, data: npt.NDArray[np.uint8], max_pixels: int) -> Encoded:
    """The file with what its header says, as the decoder's own parser reads it, before any pixel is decoded."""
    head = data[:16].tobytes()
    for magic, name in _UNREADABLE.items():
        if head.startswith(magic):
            raise _RefusedError("unsupported", f"{name} is not decoded; convert it to PNG")
    if head[4:8] == b"ftyp":
        raise _RefusedError("unsupported", "HEIC and AVIF are not decoded; convert it to PNG")
    try:
        stream = nvimgcodec.CodeStream(data)
        width, height, codec = stream.width, stream.height, stream.codec_name
    except RuntimeError as error:
        names = [name for magic, name in _READABLE.items() if head.startswith(magic)]
        if names and (names != ["WebP"] or head[8:12] == b"WEBP"):
            raise _RefusedError("corrupt", f"it begins as {names[0]}, but cannot be read as such") from error
        raise _RefusedError("not an image", f"it begins with {head[:8]!r}") from error
    if width <= 0 or height <= 0:
        raise _RefusedError("corrupt", f"its header says {width}x{height} pixels")
    if width * height > max_pixels:
        reason = f"{width}x{height} is {width * height:,} pixels; the limit is {max_pixels:,} (--max-pixels)"
        raise _RefusedError("too large", reason, *(side if side < 2**31 else None for side in (width, height)))
    # DALI leaves a damaged fax TIFF, of one bit, to OpenCV, which gives away what lay in memory before.
    fax = codec == "tiff" and stream.precision == 1
    if fax or not _eight_bits(stream):
        # Decoders scale 16 bits to 8 in ways that differ by up to 254 of 255: such a probability would mean nothing.
        raise _RefusedError(
            "unsupported", "its colours are not stored in 8 bits each; convert it to 8-bit RGB", width, height
        )
    mark = _END_MARKS.get(codec)
    suspect = mark is not None and mark not in data[-64:].tobytes()
    if codec == "jpeg" and (scans := _scans(data)) > _MOST_SCANS:
        raise _RefusedError("corrupt", f"it has {scans:,} scans; a sound progressive JPEG has about ten", width, height)
    plain_jpeg = codec == "jpeg" and stream.num_channels in (1, 3)
    return Encoded(slide, data, width, height, suspect, plain_jpeg)


def _scans(data: npt.NDArray[np.uint8]) -> int:
    """How often a JPEG's bytes read like the beginning of a scan; NumPy lets other threads run meanwhile."""
    marks = np.flatnonzero(data[:-1] == _SCAN[0]) + 1
    return int(np.count_nonzero(data[marks] == _SCAN[1]))


def _eight_bits(stream: nvimgcodec.CodeStream) -> bool:
    try:
        return bool(stream.dtype == np.uint8)
    except TypeError:  # NumPy has no name for what the header says
        return False
