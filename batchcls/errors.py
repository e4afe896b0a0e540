"""What a user can cause or meet; anything else is a bug and keeps its traceback."""

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class BatchclsError(Exception):
    """One line for the user: what was asked, what was found, and the command that mends it."""

    exit_code = 1


class CheckpointError(BatchclsError):
    """A trained file that cannot be read safely, or is not the network it was said to be."""


class RecipeError(BatchclsError):
    """A recipe with an unknown key or a value that no engine could be built with."""


class EngineError(BatchclsError):
    """An engine folder, or a device, that cannot answer for the engine that was asked for."""


class MemoryShortageError(BatchclsError):
    """A run for which there is less memory than it needs."""


def describe_shortage(error: BaseException) -> tuple[str, str] | None:
    """What there was too little of, and what limits it, where an error that nobody has expected is of that kind.

    Python, its loader and the operating system each have words of their own for it.
    """
    text = str(error)
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return "room for open files", "ulimit -n"
    if "can't start new thread" in text or isinstance(error, BlockingIOError):
        return "memory, or room for processes and threads", "ulimit -v, ulimit -u, cgroup"
    if isinstance(error, MemoryError) or "failed to map segment" in text or "annot allocate memory" in text:
        return "memory", "ulimit -v, cgroup"
    return None


class DeviceMemoryError(EngineError):
    """A GPU that has not the memory that was asked for."""


class VerificationError(BatchclsError):
    """An engine whose answers differ too often from the network that it was built from."""


class DecoderError(BatchclsError):
    """A decoder that fails, whatever the file."""


class SlidesError(BatchclsError):
    """Nothing to classify was found where slides were said to be."""


class LabelsError(BatchclsError):
    """Labelled images, or a predictions file, that cannot be used as they are."""


class TrainingError(BatchclsError):
    """A training that cannot begin, or that went nowhere."""


class OutputError(BatchclsError):
    """An output that may not be written, or that the disk refused."""


@contextmanager
def temporary_files() -> Iterator[None]:
    """Turns what the operating system refuses into an `OutputError` that names the folder for temporary files."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        with suppress(OSError):  # where there is none, the reason says it
            reason = f"{tempfile.gettempdir()!r}: {reason}"
        raise OutputError(f"cannot write temporary files: {reason}; name another folder: export TMPDIR=DIR") from error


class InterruptedRunError(BatchclsError):
    """A run stopped by a signal; its finished rows are on disk."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number
