"""The command line: parses, delegates and prints; the one place where errors become exit codes."""

import importlib
import os
import signal
import sys
from typing import Any

import click

from batchcls import __version__
from batchcls.cli.printing import echo, exit_code
from batchcls.errors import BatchclsError, describe_shortage
from batchcls.interrupts import Interrupt, StoppedError

_GRACE_S = 30.0
"""Seconds that a command may take to clean up after a signal; a second signal ends it at once."""
_ANSWER_AFTER_S = 0.3
"""Seconds after which a command that has not ended says that the signal has come."""
_NO_TELEMETRY = ("ORT_DISABLE_TELEMETRY", "NNCF_CI")
"""Environment variables that keep ONNX Runtime and NNCF from sending reports of their use."""
_COMMANDS = {
    **{name: name for name in ("build", "compare", "evaluate", "explain", "info")},
    "find-duplicates": "find_duplicates",
    "list": "list_slides",  # `list` is Python's own
    **{name: name for name in ("merge", "predict", "report", "run", "train")},
}
"""Each command's module, which has the command under its own name."""


class Group(click.Group):
    """Loads only the command that is run, and turns its errors into one line and an exit code."""

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        os.environ.update(dict.fromkeys(_NO_TELEMETRY, "1"))

        def command() -> Any:
            return super(Group, self).main(*args, standalone_mode=False, **extra)  # type: ignore[call-overload]

        return sys.exit(exit_code(command)) if standalone_mode else command()

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if (module := _COMMANDS.get(cmd_name)) is None:
            return None
        command: click.Command = getattr(importlib.import_module(f"batchcls.cli.{module}"), module)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            interrupt = Interrupt(sys.stderr, _GRACE_S, raises=True, answer_after_s=_ANSWER_AFTER_S)
            interrupt.answer = "stopping after this step; files are written whole or not at all"
            with interrupt.listening():
                return super().invoke(ctx)
        except BatchclsError as error:
            echo(f"batchcls: {error}", err=True)
            ctx.exit(error.exit_code)
        except click.exceptions.Exit:  # how click ends --help; it is a RuntimeError
            raise
        except (MemoryError, ImportError, OSError, RuntimeError) as error:
            if (shortage := describe_shortage(error)) is None:
                raise
            resource, limits = shortage
            echo(
                f"batchcls: there was not enough {resource}, and what is finished is kept; free some, or raise the "
                f"limits ({limits}), then run the same command again ({' '.join(str(error).split())[:200]})",
                err=True,
            )
            ctx.exit(1)
        except KeyboardInterrupt as end:
            number = end.signal if isinstance(end, StoppedError) else signal.SIGINT
            word = "interrupted" if number == signal.SIGINT else f"stopped by {number.name}"
            echo(f"batchcls: {word}", err=True)
            ctx.exit(128 + number)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, package_name="batchcls")
def main() -> None:
    """Classify whole folders of slide images, fast and without losing a row."""
