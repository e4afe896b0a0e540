"""Slides that wait to be read, listed by a thread of their own, because listing may wait for a disk or a process."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from batchcls.images.sources.places import reader_kind
from batchcls.records import Slide

_MOST_SLIDES = 256
"""Number of slides that are listed ahead."""


class SlideQueue:
    """The slides of an iterable, in its order; the first slides of those that are put back come first.

    Args:
        slides: The slides, iterated over by another thread.
        group_files: Number of slides that are worth a call of ``on_change`` while others may follow at once.
        on_change: Called by the other thread when so many slides wait, and after the last one.
    """

    def __init__(self, slides: Iterable[Slide], group_files: int, on_change: Callable[[], None]) -> None:
        self.error: BaseException | None = None
        """Exception that iteration over the slides has raised, after which there are no more slides."""
        self._source = slides
        self._group_files = group_files
        self._on_change = on_change
        self._waiting: deque[Slide] = deque()
        self._returned: deque[Slide] = deque()
        self._ended = False
        self._closed = False
        self._room = threading.Event()
        self._thread = threading.Thread(target=self._list_all, name="slides", daemon=True)

    def start(self) -> None:
        """Begin to list."""
        self._thread.start()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._returned)

    @property
    def ended(self) -> bool:
        """Whether every slide has been taken."""
        return self._ended and not self

    @property
    def growing(self) -> bool:
        """Whether more slides may follow at any moment, so that waiting for them makes a larger group."""
        return not self._ended

    def take(self, count: int) -> list[Slide]:
        """Up to ``count`` slides, which readers of one kind read; at least one, if there is any."""
        slides: list[Slide] = []
        kind = None
        while len(slides) < count and (queue := self._returned or self._waiting):
            kind = kind or reader_kind(queue[0])
            if reader_kind(queue[0]) != kind:
                break
            slides.append(queue.popleft())
        if len(self._waiting) <= _MOST_SLIDES // 2:
            self._room.set()
        return slides

    def put_back(self, slides: Sequence[Slide]) -> None:
        """Let slides that have been taken be taken again, before others."""
        self._returned.extendleft(reversed(slides))

    def close(self) -> None:
        """End the listing thread at its next slide, without waiting for it."""
        self._closed = True
        self._room.set()

    def _list_all(self) -> None:
        """List until there are no more slides; runs in the other thread."""
        try:
            for slide in self._source:
                self._waiting.append(slide)
                if len(self._waiting) >= _MOST_SLIDES:
                    self._on_change()
                    while len(self._waiting) >= _MOST_SLIDES and not self._closed:
                        self._room.wait()
                        self._room.clear()
                elif len(self._waiting) == self._group_files:
                    self._on_change()
                if self._closed:
                    return
        except BaseException as error:  # noqa: BLE001  # raised where the slides are taken
            self.error = error
        finally:
            self._ended = True
            self._on_change()
