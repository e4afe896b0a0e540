"""Slides read ahead of the decoder, by threads, within a budget of memory."""

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
"""Bytes that a small file or a failure counts for, so that their number is bounded too."""
_READERS = 32
"""Number of threads, which mostly wait: enough to hide 5 ms per file on a network, up to 6,000 files per second."""
_READS_AHEAD = 256
"""Largest number of files read and not taken yet."""
_SHORT_BYTES = 64 << 20
"""Bytes that are missing where not even a small file could be read."""
_IDLE_S = 0.25
"""Seconds without a file after which the iteration yields None."""
_OUT_OF_FILES = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS))
"""Error numbers that are no fault of the file that was to be opened."""
_END = object()
"""What a thread puts into the queue when it has read its last file."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A slide's bytes, with a header that promises an image that can be decoded."""

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
    """Most bytes that are read and not decoded yet; a larger file is postponed."""


class _ClosedError(Exception):
    """The reading has been closed."""


class ReadAhead:
    """Reads slides in threads; iterate once to get each, as `Encoded`, `Failure` or `Postponed`, as reads end.

    The iteration yields None where no file comes for a moment: a consumer that waits for more should decode what it
    has, for the budget may be spent, or a read never return. An exception of ``slides`` itself, or one that is no fault
    of a file, is raised from the iteration.
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
        """`Encoded`, `Failure`, `Postponed`, an exception, None to be yielded as such, or `_END`."""
        self._readers = readers
        self._open_readers: dict[int, SlideReader] = {}
        """Each thread's reader, by the thread's number."""
        self._waiting: dict[int, tuple[str, float]] = {}
        """The file whose answer is awaited, and since when, by the thread's number."""
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
        """The file whose answer has been awaited longest, and for how many seconds; None: no file."""
        longest = min(list(self._waiting.values()), key=lambda wait: wait[1], default=None)
        return longest and (longest[0], monotonic() - longest[1])

    def release(self, items: Iterable[Encoded | Failure | Postponed]) -> None:
        """Give back the budget that decoded items hold."""
        with self._changed:
            self._held_bytes -= sum(item.cost if isinstance(item, Encoded) else 0 for item in items)
            self._changed.notify_all()

    def close(self) -> None:
        """End the iteration, which may be going on in another thread, and the reading; calling it twice is harmless."""
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
                format_of(slide.path, file.first_bytes)  # what is no image never needs so much
                return Postponed(slide, read_budget_bytes(length))
            self._waiting.pop(number)  # while it waits for the budget, no answer is awaited
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
        """Why a slide has no label: it could not be read, or is no image.

        Raises:
            DecoderError: If the fault is none of the file.
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
                self._done.put(None)  # so that what is held and could be decoded is not kept for more to come
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
