"""The wish that a long piece of work end, heard where it can end well."""

import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

T = TypeVar("T")


class Stop:
    """Remembers the first SIGINT or SIGTERM; a second one ends the process as if nobody listened."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        """None as long as nobody asked."""

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Inside, neither ends the process; in the main thread only."""
        before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def look(self) -> None:
        """Raise SystemExit if somebody asked."""
        if self.signal is not None:
            raise SystemExit

    def between(self, items: Iterable[T]) -> Iterator[T]:
        """All of ``items``, with a `look` before each."""
        for item in items:
            self.look()
            yield item

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
