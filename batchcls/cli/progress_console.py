"""Consoles for progress and notes, on which any text is safe and no write raises."""

from typing import IO, cast

from rich import get_console, reconfigure
from rich.console import Console

from batchcls.cli.standard_streams import GuardedStream
from batchcls.progress import SafeConsole


class CommandConsole(SafeConsole):
    """A console of a command, which writes to the unescaped stream, because its bars need control sequences."""

    @property
    def file(self) -> IO[str]:
        file: object = super().file
        return cast(IO[str], file.unescaped if isinstance(file, GuardedStream) else file)

    @file.setter
    def file(self, file: IO[str]) -> None:
        self._file = file


def new_console(file: GuardedStream | None = None) -> Console:
    """A console that writes to ``file``, or else to standard error."""
    return CommandConsole(file=cast(IO[str] | None, file), stderr=True, soft_wrap=True)


def common_console() -> Console:
    """The console of rich that libraries draw their bars on, as a `CommandConsole` on standard error."""
    reconfigure(stderr=True, soft_wrap=True)
    common = get_console()
    common.__class__ = CommandConsole  # rich keeps the class when it reconfigures the console
    return common
