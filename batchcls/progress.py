"""Show how work on files goes on: a bar on a terminal or in a notebook, a line every few seconds in a log."""

import html
from collections.abc import Iterable
from time import monotonic
from types import TracebackType
from typing import Any, Self

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.segment import Segment

from batchcls.storage.file_names import printable
from batchcls.storage.terminal_text import escaped, escaped_lines

_LINE_INTERVAL_S = 5.0
"""Seconds between two lines in a log."""
_NOTEBOOK_INTERVAL_S = 0.2
"""Seconds between two displays in a notebook."""
_LATE_S = 5.0
"""Seconds from which on the file that is waited for is named."""


_PLAIN = {"markup": False, "highlight": False, "emoji": False}


class SafeConsole(Console):
    """A console for untrusted text: brackets are no markup, and control characters are escaped."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(escaped(item) if isinstance(item, str) else item for item in objects), **options | _PLAIN)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=escaped_lines(segment.text))


class RunProgress:
    """A display of how many files are done, on ``console``; for use in a ``with`` statement.

    Args:
        console: Console on standard error; a quiet console shows nothing.
        title: Name of the work.
        done: Files that had a row before the run started.
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
        self._notebook = NotebookBar(title) if console.is_jupyter and not console.quiet else None
        self._task = self._bar.add_task("", total=None, completed=done, speed=0.0, unreadable=0, waiting="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        if self._notebook:
            self._notebook.flush()

    def show(self, done: int, unreadable: int, total: int | None, waiting: tuple[str, float] | None = None) -> None:
        """Show how many files are done.

        Args:
            done: Files that have a row, those of earlier runs included.
            unreadable: Files among those done that could not be read as an image.
            total: Files in all; None while the number is not known.
            waiting: Path of a file that the file system has not answered for, and the seconds waited; else None.
        """
        now = monotonic()
        speed = (done - self._done_before) / max(now - self._started, 1e-9)
        late_note = ""
        if waiting and waiting[1] >= _LATE_S:
            late_note = f", waiting for {printable(waiting[0])!r} for {waiting[1]:,.0f} s"
        self._bar.update(self._task, completed=done, total=total, speed=speed, unreadable=unreadable, waiting=late_note)
        if self._notebook:
            self._notebook.show(done, unreadable, total, f"{speed:,.0f} images/s{late_note}")
        elif not self._console.is_terminal and now - self._last_line >= _LINE_INTERVAL_S:
            self._last_line = now
            remaining = "" if total is None or not speed else f", {(total - done) / speed:,.0f} s left"
            of_total = "" if total is None else f" of {total:,}"
            self._console.print(
                f"{done:,}{of_total} files, {speed:,.0f} images/s{remaining}, {unreadable:,} unreadable{late_note}",
                highlight=False,
            )


class NotebookBar:
    """A bar below a notebook's cell, which IPython displays in every kind of notebook without further packages.

    Args:
        title: Name of the work.
    """

    def __init__(self, title: str) -> None:
        from IPython.display import display  # a notebook has it

        self._title = title
        self._text = ""
        self._shown = 0.0
        self._handle = display(self._html(), display_id=True)

    def show(self, done: int, unreadable: int, total: int | None, note: str) -> None:
        """Show how many files are done, at most some times a second."""
        bar = f'<progress value="{done}" max="{total}"></progress> {done:,}/{total:,}' if total else f"{done:,}"
        self._text = f"{html.escape(self._title)} {bar}, {html.escape(note)}, {unreadable:,} unreadable"
        if monotonic() - self._shown >= _NOTEBOOK_INTERVAL_S:
            self.flush()

    def flush(self) -> None:
        """Show the latest numbers."""
        self._shown = monotonic()
        self._handle.update(self._html())

    def _html(self) -> Any:
        from IPython.display import HTML

        return HTML(self._text)
