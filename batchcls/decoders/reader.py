"""Files become bytes whose header has been read: ahead of the decoder, by threads, within a budget."""

import io
import os
import stat
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue

from batchcls.image_formats import Header, RefusedError, examine, largest_bytes
from batchcls.records import Failure, Slide

_BUDGET_BYTES = 256 << 20
"""The most that waits, read but not taken; a larger file still passes, alone."""
_LEAST_COST_BYTES = 64 << 10
"""What a small file or a failure counts for, so that their number is bounded too."""
_READERS = 32
"""Threads that mostly wait: enough to hide 5 ms a file on a network, up to 6,000 files a second."""
_READS_AHEAD = 256


@dataclass(frozen=True, slots=True)
class Encoded:
    """A file's bytes, whose header promises an image that can be decoded."""

    slide: Slide
    data: bytes
    header: Header


_Read = tuple[Encoded | Failure, int]
"""What became of a file, and the bytes of the budget that it holds."""


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
                data = _read_fully(stream, size)
            return Encoded(slide, data, examine(slide.path, data, self._max_pixels)), cost
        except RefusedError as refusal:
            return Failure(slide, *refusal.details), cost or self._reserve(0)
        except FileNotFoundError:
            return Failure(slide, "missing", "it is gone, or a link that leads nowhere"), cost or self._reserve(0)
        except OSError as error:
            return Failure(slide, "unreadable", error.strerror or str(error)), cost or self._reserve(0)

    def _checked_size(self, status: os.stat_result) -> int:
        if not stat.S_ISREG(status.st_mode):
            raise RefusedError("not an image", "it is no regular file")
        if status.st_size == 0:
            raise RefusedError("empty", "it has no bytes")
        if status.st_size > (limit := largest_bytes(self._max_pixels)):
            raise RefusedError("too large", f"it has {status.st_size:,} bytes; --max-pixels allows for {limit:,}")
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


def _read_fully(stream: io.FileIO, size: int) -> bytes:
    """Up to ``size`` bytes; fewer if the file has shrunk meanwhile."""
    data = stream.read(size)
    while len(data) < size and (more := stream.read(size - len(data))):  # one call reads 2 GiB at most
        data += more
    return data
