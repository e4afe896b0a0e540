"""The command line: parse, delegate, echo; the one place where errors become exit codes."""

import importlib
import os
import signal
import sys
from typing import Any

import click

from batchcls import __version__
from batchcls.cli.terminal import echo, exit_code
from batchcls.errors import BatchclsError, shortage
from batchcls.interrupts import Interrupt, StoppedError

_GRACE_S = 30.0
"""For a command to clean up after itself, when it is to stop; a second signal ends it at once."""
_NO_TELEMETRY = ("ORT_DISABLE_TELEMETRY", "NNCF_CI")
"""What ONNX Runtime and NNCF must find in their environment so as not to tell their makers who uses them for what."""
_COMMANDS = ("build", "evaluate", "explain", "info", "report", "run", "train")


class Group(click.Group):
    """Loads a command when it is asked for, and ends with one line where a `BatchclsError` comes out of it."""

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        os.environ.update(dict.fromkeys(_NO_TELEMETRY, "1"))

        def command() -> Any:
            return super(Group, self).main(*args, standalone_mode=False, **extra)  # type: ignore[call-overload]

        return sys.exit(exit_code(command)) if standalone_mode else command()

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f"batchcls.cli.{cmd_name}"), cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with Interrupt(sys.stderr, _GRACE_S, raises=True).listening():
                return super().invoke(ctx)
        except BatchclsError as error:
            echo(f"batchcls: {error}", err=True)
            ctx.exit(error.exit_code)
        except click.exceptions.Exit:  # a RuntimeError, by which --help ends
            raise
        except (MemoryError, ImportError, OSError, RuntimeError) as error:
            if (scarce := shortage(error)) is None:
                raise
            echo(
                f"batchcls: there was not enough {scarce[0]}, and what is finished is kept; free some, or raise the "
                f"limits ({scarce[1]}), then run the same command again ({' '.join(str(error).split())[:200]})",
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
