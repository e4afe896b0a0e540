"""The wish that a long piece of work end, heard where it can end well, and in time whatever else goes on."""

import os
import select
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import Thread
from time import monotonic
from types import FrameType
from typing import TypeVar

from rich.console import Console

T = TypeVar("T")

GRACE_S = 1.7
"""For those whose work is safe on disk at any time."""
_SAME_S = 0.5
"""A second signal so soon is the first one, sent to the process and to its group."""
_LAST_WORD_S = 0.2


class Stop:
    """Remembers the first SIGINT, SIGTERM or SIGHUP; a second one ends the process as if nobody listened.

    Args:
        console: Where the last word goes, if the process has to be ended.
        grace_s: So long after the first signal the process ends, whatever its threads wait for.
    """

    def __init__(self, console: Console, grace_s: float) -> None:
        self.signal: signal.Signals | None = None
        """None as long as nobody asked."""
        self.last_word = "run the same command again to go on"
        """What is on disk, and how to go on."""
        self._console = console
        self._grace_s = grace_s

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Inside, no such signal ends the process at once; in the main thread only."""
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup
            numbers.append(signal.SIGHUP)
        before = {number: signal.signal(number, self._note) for number in numbers}
        heard, told = os.pipe()
        os.set_blocking(told, False)
        watched = signal.set_wakeup_fd(told, warn_on_full_buffer=False)
        # The main thread hears of signals between two steps of Python, and one of its steps may never end.
        watcher = Thread(target=self._watch, args=(heard, set(numbers)), name="stop", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(watched)
            os.close(told)
            watcher.join()
            os.close(heard)
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
        self.signal = self.signal or signal.Signals(number)

    def _watch(self, heard: int, numbers: set[int]) -> None:
        """End the process some time after the first signal, or with the second, unless the listening ends before."""
        first, until = 0, float("inf")
        while True:
            left = None if not first else max(0.0, until - monotonic())
            if not select.select([heard], [], [], left)[0]:
                self._end(first)
            number = os.read(heard, 1)
            if not number:
                return
            if number[0] not in numbers:
                continue
            if not first:
                first, since = number[0], monotonic()
                until = since + self._grace_s
            elif monotonic() - since > _SAME_S:
                self._end(number[0])

    def _end(self, number: int) -> None:
        """End the process with the last word, unless nobody takes it."""
        word = f"batchcls: stopped by {signal.Signals(number).name}; {self.last_word}\n".encode(
            errors="backslashreplace"
        )
        speaker = Thread(target=os.write, args=(self._console.file.fileno(), word), daemon=True)
        speaker.start()
        speaker.join(_LAST_WORD_S)
        os._exit(128 + number)
