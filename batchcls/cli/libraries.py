"""Refuse a command whose optional packages are missing, and hide what C libraries print."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from batchcls.cli.standard_streams import GuardedStream
from batchcls.errors import BatchclsError

if TYPE_CHECKING:
    from rich.console import Console


@contextmanager
def extra(name: str, task: str) -> Iterator[None]:
    """A context for imports of packages that pip's extra ``name`` installs: import errors become one line for the user.

    Args:
        task: Task that needs the packages, for the message.

    Raises:
        BatchclsError: If a package is not installed, or finds no folder for its temporary files.
    """
    try:
        yield
    except ImportError as error:
        raise BatchclsError(
            f"{task} needs {error.name}, which is not installed; run: pip install 'batchcls[{name}]'"
        ) from error
    except OSError as error:  # matplotlib finds no folder that it may write to, and says which variable names one
        raise BatchclsError(f"{task} cannot begin: {' '.join(str(error).split())}; or: export TMPDIR=DIR") from error


@contextmanager
def library_noise_hidden() -> Iterator["Console"]:
    """Hide what C libraries such as libjpeg print about broken files; the errors of Python still show.

    Yields:
        The console for progress and notes.
    """
    import faulthandler

    from batchcls.cli.progress_console import new_console

    sys.stderr.flush()
    saved_stderr = os.dup(2)
    null_device = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null_device, 2)
    os.close(null_device)
    stream = os.fdopen(os.dup(saved_stderr), "w", buffering=1, errors="backslashreplace")
    try:
        faulthandler.enable(stream)
        yield new_console(GuardedStream(stream))
    finally:
        faulthandler.disable()
        with suppress(OSError):
            stream.close()
        os.dup2(saved_stderr, 2)
        os.close(saved_stderr)
