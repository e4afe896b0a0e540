"""What a command finds around it: packages that not every installation has, and libraries that print."""

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
    """Translate import errors of packages that the extra ``name`` installs; to be put around their imports.

    Args:
        task: What needs the packages, for the message.

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

    from batchcls.cli.progress_console import console

    sys.stderr.flush()
    terminal = os.dup(2)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 2)
    os.close(silence)
    stream = os.fdopen(os.dup(terminal), "w", buffering=1, errors="backslashreplace")
    try:
        faulthandler.enable(stream)
        yield console(GuardedStream(stream))
    finally:
        faulthandler.disable()
        with suppress(OSError):
            stream.close()
        os.dup2(terminal, 2)
        os.close(terminal)
