"""Reading slides ahead of the decoder within a budget of memory, by groups or alone."""

import socket
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress

from batchcls.images.decoders.encoded import Encoded as Encoded
from batchcls.images.decoders.encoded import ReadOptions as ReadOptions
from batchcls.images.decoders.encoded import with_digest
from batchcls.images.decoders.group_reads import GroupReads
from batchcls.images.decoders.read_budget import ReadBudget
from batchcls.images.decoders.single_reads import SingleReads, no_answer
from batchcls.images.decoders.slide_queue import SlideQueue
from batchcls.images.sources.base import GROUP_FILES, SlideReaders
from batchcls.records import Failure, Postponed, Slide

_IDLE_S = 0.25
"""Seconds without a file after which the iteration yields None."""
_LISTING_S = 0.005
"""Seconds that a group which is not full waits for more slides to be listed."""

Item = Encoded | Failure | Postponed


class ReadAhead:
    """Reads slides by groups; one iteration yields each as `Encoded`, `Failure` or `Postponed`, as soon as it is read.

    Groups are read by another process. A slide that is refused there, or is large, is read alone, which tells the
    reason; so are all that wait for a slow one's answer in other groups.

    The iteration yields None if no file arrives for a moment. Then a consumer that waits for more files should decode
    those that it has, for the budget may be exhausted, or a read may never return. Exceptions of ``slides`` itself, and
    those that are no fault of a file, are raised from the iteration.

    Args:
        slides: Slides to read; another thread iterates over them.
        readers: Makes readers.
        options: Limits of reading.
    """

    def __init__(self, slides: Iterable[Slide], readers: SlideReaders, options: ReadOptions) -> None:
        self._options = options
        self._wake_up = _WakeUp()
        self._budget = ReadBudget(options.budget_bytes, self._wake_up.set)
        self._listed = SlideQueue(slides, GROUP_FILES, self._wake_up.set)
        self._groups = GroupReads(readers, options, self._budget)
        self._single = SingleReads(readers, options, self._budget, self._put)
        self._done: deque[Item | BaseException] = deque()
        """Slides that are read, and exceptions to raise."""
        self._under_way = 0
        """Number of slides that have been taken from the list and not been yielded."""
        self._listing_waited = False
        """Whether the next group need not wait for more slides to be listed."""
        self._begun = False
        self._closed = False
        self._releasing = threading.Lock()

    def __iter__(self) -> Iterator[Item | None]:
        if self._closed:
            return
        self._begun = True
        try:
            self._listed.start()
            self._groups.register(self._wake_up.fileno())
            yield from self._items()
        finally:
            self._end()

    def _items(self) -> Iterator[Item | None]:
        short = 0
        while not self._closed:
            self._start_groups()
            while self._done and not self._closed:
                item = self._done.popleft()
                if isinstance(item, BaseException):
                    raise item
                self._under_way -= 1
                yield item
            if self._listed.ended and not self._under_way and not self._done:
                if self._listed.error:
                    raise self._listed.error
                return
            waiting = self._budget.waiting
            if waiting > short or self._is_starved():
                yield None  # makes the consumer decode what it has, which frees the budget
            short = waiting
            if not self._wait():
                yield None

    def waiting(self) -> tuple[str, float] | None:
        """The file that has been waited for longest, and the seconds since then; None if no file is waited for."""
        waits = [self._groups.waiting(), self._single.waiting()]
        return max(filter(None, waits), key=lambda wait: wait[1], default=None)

    def release(self, items: Iterable[Item]) -> None:
        """Let the memory of decoded items be used again; any thread may call this method."""
        with self._releasing:
            for item in items:
                if isinstance(item, Encoded) and item.memory:
                    item.memory.files -= 1
                    if not item.memory.files:
                        item.memory.give_back()
        self._wake_up.set()

    def close(self) -> None:
        """End reading and iteration, also an iteration in another thread; calling it twice is harmless."""
        self._closed = True
        self._wake_up.set()
        self._listed.close()
        self._budget.close()
        self._single.close()
        if not self._begun:
            self._end()

    def _end(self) -> None:
        self._groups.close()
        self._wake_up.close()

    def _start_groups(self) -> None:
        """Begin to read as many groups as there are slides, readers and memory for."""
        if self._budget.waiting:
            self._groups.close_idle()
            return
        while self._may_start() and self._groups.has_room():
            slides = self._listed.take(self._groups.group_files)
            self._under_way += len(slides)
            self._groups.start(slides)
            self._listing_waited = False

    def _may_start(self) -> bool:
        """Whether a group may be started, if there is memory for it."""
        count = len(self._listed)
        full = count >= self._groups.group_files or self._listing_waited or not self._listed.growing
        return count > 0 and full and self._under_way < self._options.files_ahead

    def _is_starved(self) -> bool:
        """Whether nothing more can be read until the consumer gives memory back."""
        return self._may_start() and not self._groups.busy and not self._single.busy

    def _wait(self) -> bool:
        """Wait until something has changed, and take what has been read; False if nothing has changed for a moment."""
        listing = 0 < len(self._listed) < self._groups.group_files and self._listed.growing
        ready = self._groups.ready(_LISTING_S if listing else _IDLE_S)
        self._listing_waited = listing and not ready
        if self._closed:
            return True
        if not ready and self._listed:
            self._groups.widen()
        for descriptor in ready:
            if descriptor == self._wake_up.fileno():
                self._wake_up.clear()
            else:
                self._take(*self._groups.collect(descriptor))
        again, without_answer = self._groups.stalled()
        self._take([], [], again)
        self._done += [no_answer(slide, self._options.timeout_s) for slide in without_answer]
        return bool(ready) or listing

    def _take(self, read: list[Encoded], alone: list[Slide], again: list[Slide]) -> None:
        self._done += map(with_digest, read) if self._options.digests else read
        self._under_way -= len(again)
        self._listed.put_back(again)
        for slide in alone:
            self._single.read(slide)

    def _put(self, item: Item | BaseException) -> None:
        """Hand over a slide that has been read alone; called in any thread."""
        self._done.append(item)
        self._wake_up.set()


class _WakeUp:
    """A descriptor that is readable once any thread has called `set`, until `clear`."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._is_set = False
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def fileno(self) -> int:
        return self._reader.fileno()

    def set(self) -> None:
        if not self._is_set:
            self._is_set = True
            with suppress(OSError):  # nobody waits any more
                self._writer.send(b"\0")

    def clear(self) -> None:
        self._is_set = False
        self._reader.recv(64)

    def close(self) -> None:
        self._reader.close()
        self._writer.close()
