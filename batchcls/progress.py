"""How far a run is: a bar on a terminal, a line every few seconds in a log."""

from time import monotonic
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from batchcls.storage.file_names import printable

_LINE_SECONDS = 5.0
_LATE_SECONDS = 5.0


class RunProgress:
    """Shows how many files are done on ``console``; use it in a ``with`` statement.

    Args:
        console: Standard error; a quiet one shows nothing.
        title: What is being done.
        done: Rows that were there before the run started.
    """

    def __init__(self, console: Console, title: str, done: int = 0) -> None:
        self._console = console
        self._done_before = done
        self._started = self._last_line = monotonic()
        self._bar = Progress(
            TextColumn(title),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]:.0f} images/s"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[unreadable]} unreadable{task.fields[waiting]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=None, completed=done, speed=0.0, unreadable=0, waiting="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def show(self, done: int, unreadable: int, total: int | None, waiting: tuple[str, float] | None = None) -> None:
        """Show how many files are done.

        Args:
            done: Files that have a row, those of earlier runs included.
            unreadable: Files among them that are no image, or none that can be read.
            total: Files that are to be done; None while that is not known.
            waiting: A file that the file system gives no answer of, and for how many seconds.
        """
        now = monotonic()
        speed = (done - self._done_before) / max(now - self._started, 1e-9)
        late = ""
        if waiting and waiting[1] >= _LATE_SECONDS:
            late = f", waiting for {printable(waiting[0])!r} for {waiting[1]:,.0f} s"
        self._bar.update(self._task, completed=done, total=total, speed=speed, unreadable=unreadable, waiting=late)
        if not self._console.is_terminal and now - self._last_line >= _LINE_SECONDS:
            self._last_line = now
            left = "" if total is None or not speed else f", {(total - done) / speed:,.0f} s left"
            whole = "" if total is None else f" of {total:,}"
            self._console.print(
                f"{done:,}{whole} files, {speed:,.0f} images/s{left}, {unreadable:,} unreadable{late}",
                highlight=False,
            )
