"""Lines on the standard streams, and how a command ends."""

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import click

from batchcls.cli import standard_streams
from batchcls.storage.terminal_text import escaped


def echo(*lines: str, err: bool = False) -> None:
    """Print each of ``lines``, escaped, on standard output, or on standard error."""
    stream = sys.stderr if err else sys.stdout
    stream.write("".join(f"{escaped(line)}\n" for line in lines))
    stream.flush()


def next_line(*words: str | Path) -> str:
    """The last line of a command, with the command to type next."""
    return f"next      {shlex.join(map(str, words))}"


def print_and_exit(*lines: str) -> NoReturn:
    """Print ``lines`` as the only result of a command, and end the command; with exit code 1 if printing fails."""
    echo(*lines)
    click.get_current_context().exit()


def exit_code(command: Callable[[], Any]) -> int:
    """Run a click command, print what went wrong, and return the exit code.

    Args:
        command: Function that runs the command; returns None after the command's work, else the exit code of a command
            that ended early.
    """
    standard_streams.guard()
    try:
        early_exit = command()
        code = int(early_exit or 0)
    except click.exceptions.NoArgsIsHelpError as error:
        early_exit, code = None, error.exit_code
        error.show()
    except click.ClickException as error:  # which may repeat an argument as it was given
        early_exit, code = None, error.exit_code
        click.UsageError(escaped(error.format_message()), getattr(error, "ctx", None)).show()
    except click.Abort:
        early_exit, code = None, 130
        echo("batchcls: interrupted", err=True)
    except SystemExit as end:
        early_exit, code = None, end.code if isinstance(end.code, int) else int(end.code is not None)
    standard_streams.report_lost_output()
    ended_early = early_exit is not None  # a help text, for example: a command that did its work returns None
    return code or int(ended_early and standard_streams.output_failure() is not None)
