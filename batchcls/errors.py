"""The errors that a user can cause or meet; any other exception is a bug and keeps its traceback."""

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class BatchclsError(Exception):
    """Base of all errors, with one line for the user: the request, the finding, and the command that mends it."""

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
    """The scarce resource and the limits that apply to it, where an unexpected error means a shortage; else None.

    Python, its loader and the operating system each report a shortage in other words.
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
    """A GPU with less memory than was asked for."""


class VerificationError(BatchclsError):
    """An engine whose answers differ too often from the network that it was built from."""


class DecoderError(BatchclsError):
    """A decoder that fails for a reason other than its files."""


class SlidesError(BatchclsError):
    """A folder or file of slides with nothing to classify."""


class LabelsError(BatchclsError):
    """Labeled images, or a predictions file, that cannot be used as they are."""


class TrainingError(BatchclsError):
    """A training that cannot begin, or whose loss is no number."""


class OutputError(BatchclsError):
    """An output that may not be written, or that the disk refuses."""


@contextmanager
def temporary_files() -> Iterator[None]:
    """Turn an `OSError` into an `OutputError` that names the folder for temporary files."""
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
