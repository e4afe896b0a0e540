"""Consoles for progress and notes, on which any text is safe and no write raises."""

from collections.abc import Iterable
from typing import IO, Any, cast

from rich import get_console, reconfigure
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from batchcls.cli.standard_streams import GuardedStream
from batchcls.storage.terminal_text import escaped, escaped_lines

_PLAIN = {"markup": False, "highlight": False, "emoji": False}


class SafeConsole(Console):
    """A console for untrusted text: brackets are no markup, and control characters are escaped.

    The console writes to the unescaped stream, because its bars need control sequences.
    """

    @property
    def file(self) -> IO[str]:
        file: object = super().file
        return cast(IO[str], file.unescaped if isinstance(file, GuardedStream) else file)

    @file.setter
    def file(self, file: IO[str]) -> None:
        self._file = file

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(escaped(item) if isinstance(item, str) else item for item in objects), **options | _PLAIN)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=escaped_lines(segment.text))


def new_console(file: GuardedStream | None = None) -> Console:
    """A console that writes to ``file``, or else to standard error."""
    return SafeConsole(file=cast(IO[str] | None, file), stderr=True, soft_wrap=True)


def common_console() -> Console:
    """The console of rich that libraries draw their bars on, as a `SafeConsole` on standard error."""
    reconfigure(stderr=True, soft_wrap=True)
    common = get_console()
    common.__class__ = SafeConsole  # rich keeps the class when it reconfigures the console
    return common
