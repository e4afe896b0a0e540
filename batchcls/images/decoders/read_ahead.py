"""Reading slides ahead of the decoder, in threads, within a budget of memory."""

import errno
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any

from batchcls.errors import DecoderError
from batchcls.images.formats.byte_extent import image_end
from batchcls.images.formats.inspection import Header, examine
from batchcls.images.formats.refusal import RefusedError, check_file, largest_bytes
from batchcls.images.formats.signatures import format_of
from batchcls.images.sources.base import SlideReader, SlideReaders
from batchcls.memory import read_budget_bytes
from batchcls.records import Failure, Postponed, Slide
from batchcls.storage.timeouts import READ_TIMEOUT_S
from batchcls.storage.transient_errors import NO_ANSWER

_LEAST_COST_BYTES = 64 << 10
"""Smallest cost of a file in the budget, so that the number of small files is bounded too."""
_READERS = 32
"""Number of threads, which mostly wait; with 5 ms per file on a network disk they read up to 6,000 files per second."""
_READS_AHEAD = 256
"""Largest number of files that are read and not taken by the iteration yet."""
_SHORT_BYTES = 64 << 20
"""Smallest amount of memory that is taken to be missing after a MemoryError."""
_IDLE_S = 0.25
"""Seconds without a file after which the iteration yields None."""
_OUT_OF_FILES = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS))
"""Error numbers of failures to open a file that are no fault of the file."""
_END = object()
"""Item that a thread puts into the queue after its last file."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """The bytes of a slide's file, and the header of its image."""

    slide: Slide
    data: bytes
    header: Header
    cost: int
    """Bytes of the read budget that are held until `ReadAhead.release`."""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How slides are read ahead."""

    max_pixels: int
    """Largest number of pixels of an image; larger images are refused."""
    timeout_s: float = READ_TIMEOUT_S
    """How long the file system may take for one answer."""
    budget_bytes: int = 256 << 20
    """Largest number of bytes that are read and not decoded yet; a larger file is postponed."""


class _ClosedError(Exception):
    """The reading has been closed."""


class ReadAhead:
    """Reads slides in threads; one iteration yields each as `Encoded`, `Failure` or `Postponed`, as soon as it is read.

    The iteration yields None if no file arrives for a moment. Then a consumer that waits for more files should decode
    those that it has, for the budget may be exhausted, or a read may never return. Exceptions of ``slides`` itself, and
    those that are no fault of a file, are raised from the iteration.

    Args:
        slides: Slides to read.
        readers: Makes a reader for each thread.
        options: Limits of reading.
    """

    def __init__(self, slides: Iterable[Slide], readers: SlideReaders, options: ReadOptions) -> None:
        self._slides = iter(slides)
        self._options = options
        self._taking = threading.Lock()
        self._changed = threading.Condition()
        self._held_bytes = 0
        self._closed = False
        self._room = threading.Semaphore(_READS_AHEAD)
        self._done: SimpleQueue[Any] = SimpleQueue()
        """Queue of `Encoded`, `Failure` and `Postponed`, of exceptions to raise, of None to yield, and of `_END`."""
        self._readers = readers
        self._open_readers: dict[int, SlideReader] = {}
        """Reader of each thread, by the number of the thread."""
        self._waiting: dict[int, tuple[str, float]] = {}
        """File that a thread waits for, and monotonic time of the wait's beginning, by the number of the thread."""
        self._threads = [
            threading.Thread(target=self._read_all, name=f"reader-{number}", daemon=True) for number in range(_READERS)
        ]

    def __iter__(self) -> Iterator[Encoded | Failure | Postponed | None]:
        for thread in self._threads:
            thread.start()
        reading = len(self._threads)
        while reading:
            try:
                item = self._done.get(timeout=_IDLE_S)
            except Empty:
                item = None
            if self._closed:
                return
            if item is _END:
                reading -= 1
                continue
            if isinstance(item, BaseException):
                raise item
            if item is not None:
                self._room.release()
            yield item

    def waiting(self) -> tuple[str, float] | None:
        """The file that has been waited for longest, and the seconds since then; None if no file is waited for."""
        longest = min(list(self._waiting.values()), key=lambda wait: wait[1], default=None)
        return longest and (longest[0], monotonic() - longest[1])

    def release(self, items: Iterable[Encoded | Failure | Postponed]) -> None:
        """Give back the budget that decoded items hold."""
        with self._changed:
            self._held_bytes -= sum(item.cost if isinstance(item, Encoded) else 0 for item in items)
            self._changed.notify_all()

    def close(self) -> None:
        """End reading and iteration, also an iteration in another thread; calling it twice is harmless."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._room.release(_READERS)
        for reader in list(self._open_readers.values()):
            reader.close()
        self._done.put(None)  # wakes the iteration, if it waits

    def _read_all(self) -> None:
        """Read until there are no more slides; runs in each thread."""
        number = threading.get_ident()
        try:
            self._open_readers[number] = self._readers.reader(self._options.timeout_s)
            while (slide := self._next()) is not None:
                self._done.put(self._read(number, slide))
        except _ClosedError:
            pass
        except BaseException as error:  # noqa: BLE001  # raised where the files are taken
            if not self._closed:
                self._done.put(error)
        finally:
            self._waiting.pop(number, None)
            with suppress(KeyError):
                self._open_readers.pop(number).close()
            self._done.put(_END)

    def _next(self) -> Slide | None:
        """One more slide; None if there are no more, or the reading has been closed."""
        self._room.acquire()
        with self._taking:
            return None if self._closed else next(self._slides, None)

    def _read(self, number: int, slide: Slide) -> Encoded | Failure | Postponed:
        cost = 0
        self._waiting[number] = (slide.path, monotonic())
        try:
            file = self._open_readers[number].open(slide)
            slide = replace(slide, size_bytes=file.size_bytes, modified_ns=file.modified_ns)
            length = image_end(file.size_bytes, file.read)
            check_file(length, largest_bytes(self._options.max_pixels), is_regular=file.is_regular)
            if length > self._options.budget_bytes:
                format_of(slide.path, file.first_bytes)  # refuses a file that is no image, instead of postponing it
                return Postponed(slide, read_budget_bytes(length))
            self._waiting.pop(number)  # waiting for the budget is no waiting for the file system
            cost = self._reserve(length)
            self._waiting[number] = (slide.path, monotonic())
            data = file.read(0, length)
            return Encoded(slide, data, examine(slide.path, data, self._options.max_pixels), cost)
        except MemoryError:
            self._give_back(cost)
            return Postponed(slide, read_budget_bytes(max(slide.size_bytes or 0, _SHORT_BYTES)))
        except (RefusedError, OSError) as error:
            if self._closed:
                raise _ClosedError from error
            self._give_back(cost)
            return self._failure(number, slide, error)
        finally:
            self._waiting.pop(number, None)

    def _failure(self, number: int, slide: Slide, error: RefusedError | OSError) -> Failure:
        """The failure of a slide that could not be read, or is no image.

        Raises:
            DecoderError: If the error is no fault of the file.
        """
        if isinstance(error, RefusedError):
            return Failure(slide, *error.details)
        if (
            isinstance(error, TimeoutError) and error.errno is None
        ):  # no answer in time: the file system's own errors have a number
            self._open_readers[number].close()
            self._open_readers[number] = self._readers.reader(self._options.timeout_s)
            return Failure(slide, "unreadable", f"{NO_ANSWER} {self._options.timeout_s:g} s")
        if isinstance(error, FileNotFoundError):
            return Failure(slide, "missing", "it is gone, or a link that leads nowhere")
        if error.errno in _OUT_OF_FILES:
            raise DecoderError(
                f"{slide.file!r} could not be opened: {error.strerror}, which is no fault of the file; every finished "
                "part is kept: free some (ulimit -n, memory), then run the same command again"
            ) from error
        return Failure(slide, "unreadable", error.strerror or str(error))

    def _reserve(self, size: int) -> int:
        cost = max(size, _LEAST_COST_BYTES)
        with self._changed:
            if not self._fits(cost):
                self._done.put(None)  # makes the consumer decode what it has, which frees the budget
            self._changed.wait_for(lambda: self._closed or self._fits(cost))
            if self._closed:
                raise _ClosedError
            self._held_bytes += cost
        return cost

    def _fits(self, cost: int) -> bool:
        return not self._held_bytes or self._held_bytes + cost <= self._options.budget_bytes

    def _give_back(self, cost: int) -> None:
        with self._changed:
            self._held_bytes -= cost
            self._changed.notify_all()
