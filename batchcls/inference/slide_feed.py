"""Slides for several processes, each of which requests them a few at a time."""

import os
import socket
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from itertools import repeat
from multiprocessing.connection import Connection, wait
from operator import attrgetter
from threading import Condition, Thread
from typing import Any, Self

from batchcls.records import Slide

_FIELDS = fields(Slide)
_MOST_SLIDES = 64
"""Slides sent at a time: few enough that all processes end at about the same time."""
_MOST_CHARACTERS = 16 << 10
"""Characters of paths sent at a time, so that a connection always has room for them, read or not."""


@dataclass(frozen=True, slots=True)
class SlideColumns:
    """Slides as columns, which travel between processes at a fifth of the cost of `Slide` objects."""

    count: int
    columns: Sequence[Sequence[Any] | None]
    """The slides' values for each field of `Slide`; None for a field that has its default in all of them."""

    @classmethod
    def of(cls, slides: Sequence[Slide]) -> Self:
        """The columns of ``slides``."""
        columns = [list(map(attrgetter(field.name), slides)) for field in _FIELDS]
        return cls(
            len(slides),
            [
                None if all(value == field.default for value in values) else values
                for field, values in zip(_FIELDS, columns, strict=True)
            ],
        )

    def slides(self) -> list[Slide]:
        """The slides that the columns were made of."""
        values = (
            repeat(field.default, self.count) if column is None else column
            for field, column in zip(_FIELDS, self.columns, strict=True)
        )
        return list(map(Slide, *values))


class SlideFeed:
    """Answers the requests of processes for slides, in threads of its own.

    One thread draws slides ahead; another one hands out what has been drawn, however little that is. So a listing that
    stands still holds up nobody who has slides, and neither does a caller that is busy.

    Args:
        slides: Slides to hand out.
        requests: Connections from which None is read, a request, and to which `SlideColumns` are sent; without slides
            they mean that there are no more.
    """

    def __init__(self, slides: Iterable[Slide], requests: Sequence[Connection]) -> None:
        self._slides = slides
        self._requests = requests
        self._drawn: deque[Slide] = deque()
        self._ended = False
        """Whether no more slides will be drawn."""
        self._error: BaseException | None = None
        """Exception of ``slides``."""
        self._changed = Condition()
        self._threads = [
            Thread(target=target, name=name, daemon=True)  # daemons, because a listing may never answer
            for name, target in (("drawing slides", self._draw), ("handing out slides", self._hand_out))
        ]
        for thread in self._threads:
            thread.start()

    def check(self) -> None:
        """Raise the exception that ended ``slides`` early, if there was one."""
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Hand out no more slides, and end the connections; never waits for ``slides``."""
        with self._changed:
            self._ended = True
            self._drawn.clear()
            self._changed.notify_all()
        for connection in self._requests:
            with suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as end:
                end.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits for the connection, as closing would not
        self._threads[1].join()

    def _draw(self) -> None:
        try:
            for slide in self._slides:
                with self._changed:
                    self._changed.wait_for(lambda: self._ended or len(self._drawn) < self._most_drawn)
                    if self._ended:
                        return
                    self._drawn.append(slide)
                    self._changed.notify_all()
        except BaseException as error:  # noqa: BLE001  # raised by `check`
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    @property
    def _most_drawn(self) -> int:
        return _MOST_SLIDES * len(self._requests)

    def _hand_out(self) -> None:
        requesting = set(self._requests)
        while requesting:
            for ready in wait(list(requesting)):
                assert isinstance(ready, Connection)  # noqa: S101  # for mypy: nothing else was waited for
                try:
                    ready.recv()
                    slides = self._portion()
                    ready.send(SlideColumns.of(slides))
                except (EOFError, OSError):  # the process has ended, and its results say how
                    slides = []
                if not slides:
                    requesting.remove(ready)

    def _portion(self) -> list[Slide]:
        """The next slides for one process, once there are any: its share of those that have been drawn, and few."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._drawn)
            most = min(_MOST_SLIDES, -(-len(self._drawn) // len(self._requests)))
            portion: list[Slide] = []
            characters = 0
            while len(portion) < most and characters < _MOST_CHARACTERS:
                portion.append(self._drawn.popleft())
                characters += len(portion[-1].path)
            self._changed.notify_all()
        return portion
