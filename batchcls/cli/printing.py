"""Lines on the standard streams, and how a command ends."""

import sys
from collections.abc import Callable
from typing import Any, NoReturn

import click

from batchcls.cli import standard_streams
from batchcls.storage.terminal_text import escaped


def echo(*lines: str, err: bool = False) -> None:
    """Print each of ``lines``, escaped, on standard output, or on standard error."""
    stream = sys.stderr if err else sys.stdout
    stream.write("".join(f"{escaped(line)}\n" for line in lines))
    stream.flush()


def print_and_exit(*lines: str) -> NoReturn:
    """Print lines on standard output, and end a command that does nothing else: with 1 if they cannot be written."""
    echo(*lines)
    click.get_current_context().exit()


def exit_code(command: Callable[[], Any]) -> int:
    """Run a click command, print what went wrong, and return the exit code.

    Args:
        command: Returns the exit code of a command that ended early, or what it printed; None after its work.
    """
    standard_streams.guard()
    try:
        printed = command()
        code = int(printed or 0)
    except click.exceptions.NoArgsIsHelpError as error:
        printed, code = None, error.exit_code
        error.show()
    except click.ClickException as error:  # which may repeat an argument as it was given
        printed, code = None, error.exit_code
        click.UsageError(escaped(error.format_message()), getattr(error, "ctx", None)).show()
    except click.Abort:
        printed, code = None, 130
        echo("batchcls: interrupted", err=True)
    except SystemExit as end:
        printed, code = None, end.code if isinstance(end.code, int) else int(end.code is not None)
    standard_streams.report_lost_output()
    only_printed = printed is not None  # a help text, for example: a command that did its work returns None
    return code or int(only_printed and standard_streams.output_failure() is not None)
