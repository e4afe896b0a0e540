"""The wish that a long piece of work end, heard where it can end well, and in time whatever else goes on."""

import os
import select
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import Thread
from time import monotonic
from types import FrameType
from typing import TextIO, TypeVar

from batchcls.storage.terminal_text import escaped

T = TypeVar("T")

GRACE_S = 1.7
"""For those whose work is safe on disk at any time."""
_SAME_S = 0.5
"""A second signal so soon is the first one, sent to the process and to its group."""
_LAST_WORD_S = 0.2
_NO_SIGNAL = b"\0"
"""Tells the watcher, which reads the numbers of signals, that nobody listens any more."""
_AFTER_A_BAR = b"\x1b[?25h\n"
"""On a terminal, where a progress bar may have hidden the cursor and stands in the line."""


class StoppedError(KeyboardInterrupt):
    """Raised in the main thread, where a command has no better place to end: no handler of errors takes it for one."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__()
        self.signal = number


class Interrupt:
    """Remembers the first SIGINT, SIGTERM or SIGHUP; a second one ends the process as if nobody listened.

    Args:
        errors: Where the last word goes, if the process has to be ended.
        grace_s: So long after the first signal the process ends, whatever its threads wait for.
        raises: Whether the first signal raises `StoppedError` as well.
    """

    def __init__(self, errors: TextIO, grace_s: float, *, raises: bool = False) -> None:
        self.signal: signal.Signals | None = None
        """None as long as nobody asked."""
        self.last_word = "run the same command again to go on"
        """What is on disk, and how to go on."""
        self._errors = errors
        self._grace_s = grace_s
        self._raises = raises

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
        os.register_at_fork(after_in_child=_keep_signals_to_itself)
        # The main thread hears of signals between two steps of Python, and one of its steps may never end.
        watcher = Thread(target=self._watch, args=(heard, set(numbers)), name="stop", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(watched)
            os.write(told, _NO_SIGNAL)  # that it is closed nobody hears as long as a forked child holds it open
            watcher.join()
            os.close(told)
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
        if self.signal is None:
            self.signal = signal.Signals(number)
            if self._raises:
                raise StoppedError(self.signal)

    def _watch(self, heard: int, numbers: set[int]) -> None:
        """End the process some time after the first signal, or with the second, unless the listening ends before."""
        first, until = 0, float("inf")
        while True:
            left = None if not first else max(0.0, until - monotonic())
            if not select.select([heard], [], [], left)[0]:
                self._end(first)
            byte = os.read(heard, 1)
            if byte == _NO_SIGNAL:
                return
            (number,) = byte
            if number not in numbers:
                continue
            if not first:
                first, since = number, monotonic()
                until = since + self._grace_s
            elif monotonic() - since > _SAME_S:
                self._end(number)

    def _end(self, number: int) -> None:
        """End the process with the last word, unless nobody takes it."""
        line = f"batchcls: stopped by {signal.Signals(number).name}; {self.last_word}"
        word = escaped(line).encode(errors="backslashreplace") + b"\n"
        if self._errors.isatty():
            word = _AFTER_A_BAR + word
        speaker = Thread(target=os.write, args=(self._errors.fileno(), word), daemon=True)
        speaker.start()
        speaker.join(_LAST_WORD_S)
        os._exit(128 + number)


def _keep_signals_to_itself() -> None:
    """A child that is told to end, a loader of images say, must not be taken for its parent."""
    signal.set_wakeup_fd(-1)
