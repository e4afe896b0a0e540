"""Slides for several processes, each of which requests them a few at a time."""

import os
import socket
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from itertools import repeat
from multiprocessing.connection import Connection, wait
from operator import attrgetter
from threading import Thread
from typing import Any, Self

from batchcls.inference.drawn_slides import DrawnSlides
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
        self._requests = requests
        self._drawn = DrawnSlides(slides, _MOST_SLIDES * len(requests))
        self._thread = Thread(target=self._hand_out, name="handing out slides", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise the exception that ended ``slides`` early, if there was one."""
        self._drawn.check()

    def close(self) -> None:
        """Hand out no more slides, and end the connections; never waits for ``slides``."""
        self._drawn.close()
        for connection in self._requests:
            with suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as end:
                end.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits for the connection, as closing would not
        self._thread.join()

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
        self._drawn.wait()
        share = -(-len(self._drawn) // len(self._requests))
        return self._drawn.take(min(_MOST_SLIDES, share), _MOST_CHARACTERS)
