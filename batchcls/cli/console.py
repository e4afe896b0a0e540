"""Where progress and notes are shown: text stands as it is, escaped, and the stream never raises."""

from collections.abc import Iterable
from typing import IO, Any, cast

from rich import get_console, reconfigure
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from batchcls.cli.streams import Guarded
from batchcls.storage.terminal_text import escaped, escaped_lines

_PLAIN = {"markup": False, "highlight": False, "emoji": False}


class HarmlessConsole(Console):
    """A console for text that anybody may have written: no bracket of it is markup, and no control character a command.

    It writes the control sequences of its own bars itself, so its stream is taken as it is.
    """

    @property
    def file(self) -> IO[str]:
        file: object = super().file
        return cast(IO[str], file.unescaped if isinstance(file, Guarded) else file)

    @file.setter
    def file(self, file: IO[str]) -> None:
        self._file = file

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(escaped(item) if isinstance(item, str) else item for item in objects), **options | _PLAIN)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=escaped_lines(segment.text))


def console(file: Guarded | None = None) -> Console:
    """One that writes to ``file``, else to standard error."""
    return HarmlessConsole(file=cast(IO[str] | None, file), stderr=True, soft_wrap=True)


def common_console() -> Console:
    """The one that libraries draw their bars on, made as harmless."""
    reconfigure(stderr=True, soft_wrap=True)
    common = get_console()
    common.__class__ = HarmlessConsole  # what rich reconfigures later keeps its class
    return common
