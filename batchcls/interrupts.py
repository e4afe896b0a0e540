"""End a command cleanly after SIGINT, SIGTERM or SIGHUP, or end its process if that takes too long."""

import os
import select
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from threading import Thread, current_thread, main_thread
from time import monotonic
from types import FrameType
from typing import TextIO, TypeVar

from batchcls.storage.terminal_text import escaped

T = TypeVar("T")

GRACE_S = 1.7
"""Seconds from the first signal to the end of a process whose work is safe on disk at any time."""
_SAME_SIGNAL_S = 0.5
"""Seconds within which a second signal counts as the first one, sent to the process and again to its group."""
_MESSAGE_S = 0.2
"""Seconds that writing a message may take."""
_NEVER = float("inf")
_NO_SIGNAL = b"\0"
"""Byte that ends the watcher, which otherwise reads the numbers of signals."""
_RESTORE_TERMINAL = b"\x1b[?25h\n"
"""Shows the cursor, which a progress bar may have hidden, and leaves the bar's line."""
_CLEAR_LINE = b"\r\x1b[2K"
"""Clears a progress bar, which is drawn again below the message."""


class StoppedError(KeyboardInterrupt):
    """The first signal, raised in the main thread of a command that does not check for signals by itself."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__()
        self.signal = number


class Interrupt:
    """Remembers the first SIGINT, SIGTERM or SIGHUP; a second signal ends the process at once.

    Args:
        errors: Stream for the last message, if the process has to be ended.
        grace_s: Seconds from the first signal to the end of the process, whatever its threads wait for.
        raises: Whether the first signal also raises `StoppedError` in the main thread.
        answer_after_s: Seconds from the first signal to the answer, if the work has not ended by then.
    """

    def __init__(self, errors: TextIO, grace_s: float, *, raises: bool = False, answer_after_s: float = 0.0) -> None:
        self.signal: signal.Signals | None = None
        """The first signal; None before it."""
        self.answer = ""
        """The answer to the first signal: what is being finished, and what is safe; empty: none."""
        self.last_message = "run the same command again to go on"
        """The last message: what is on disk, and how to go on."""
        self._errors = errors
        self._grace_s = grace_s
        self._raises = raises
        self._answer_after_s = answer_after_s

    @contextmanager
    def listening(self) -> Iterator[None]:
        """A context that remembers the first signal; for the main thread only."""
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup
            numbers.append(signal.SIGHUP)
        before = {number: signal.signal(number, self._note) for number in numbers}
        read_end, write_end = os.pipe()
        os.set_blocking(write_end, False)
        wakeup_before = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        os.register_at_fork(after_in_child=_forget_wakeup)
        # Python runs signal handlers between two steps of the main thread, and one of its steps may never end.
        watcher = Thread(target=self._watch, args=(read_end, set(numbers)), name="interrupt", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup_before)
            os.write(write_end, _NO_SIGNAL)  # closing the pipe is not enough: a forked child may hold it open
            watcher.join()
            os.close(write_end)
            os.close(read_end)
            for number, handler in before.items():
                signal.signal(number, handler)

    def check(self) -> None:
        """Raise SystemExit if a signal has come."""
        if self.signal is not None:
            raise SystemExit

    def checked(self, items: Iterable[T]) -> Iterator[T]:
        """The items of ``items``, each after a `check`."""
        for item in items:
            self.check()
            yield item

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal = signal.Signals(number)
            if self._raises:
                raise StoppedError(self.signal)

    def _watch(self, read_end: int, numbers: set[int]) -> None:
        """Answer the first signal; end the process ``grace_s`` after it, or at the second, unless `listening` ends."""
        first, deadline, answer_at = 0, _NEVER, _NEVER
        while True:
            next_s = min(deadline, answer_at)
            remaining_s = None if next_s == _NEVER else max(0.0, next_s - monotonic())
            if not select.select([read_end], [], [], remaining_s)[0]:
                if deadline <= monotonic():
                    self._end(first)
                answer_at = _NEVER
                self._write(self.answer, _CLEAR_LINE)
                continue
            byte = os.read(read_end, 1)
            if byte == _NO_SIGNAL:
                return
            (number,) = byte
            if number not in numbers:
                continue
            if not first:
                first, since = number, monotonic()
                deadline = since + self._grace_s
                answer_at = since + self._answer_after_s if self.answer else _NEVER
            elif monotonic() - since > _SAME_SIGNAL_S:
                self._end(number)

    def _end(self, number: int) -> None:
        """End the process; write the last message, if the stream takes it in time."""
        self._write(f"batchcls: stopped by {signal.Signals(number).name}; {self.last_message}", _RESTORE_TERMINAL)
        os._exit(128 + number)

    def _write(self, line: str, before_on_terminal: bytes) -> None:
        """Write a line, if the stream takes it in time."""
        message = escaped(line).encode(errors="backslashreplace") + b"\n"
        if self._errors.isatty():
            message = before_on_terminal + message

        def write() -> None:
            with suppress(OSError):  # nobody reads any more
                os.write(self._errors.fileno(), message)

        writer = Thread(target=write, daemon=True)
        writer.start()
        writer.join(_MESSAGE_S)


def reinstall_handlers() -> None:
    """Have SIGINT, SIGTERM and SIGHUP handled by Python again, after a library has set handlers below it.

    Does nothing outside the main thread, where Python allows no handler to be set.
    """
    if current_thread() is main_thread():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if (handler := signal.getsignal(number)) is not None:
                signal.signal(number, handler)


def _forget_wakeup() -> None:
    """Keep signals of a forked child, such as a loader of images, out of the pipe that it inherited."""
    signal.set_wakeup_fd(-1)
