"""The errors that a user can cause or meet; any other exception is a bug and keeps its traceback."""

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class BatchclsError(Exception):
    """Base of all errors, with one line for the user: the request, the finding, and the command that mends it."""

    exit_code = 1


class CheckpointError(BatchclsError):
    """A trained file that cannot be read safely, or does not hold the network that the options name."""


class RecipeError(BatchclsError):
    """A recipe with an unknown key or a value that no engine could be built with."""


class EngineError(BatchclsError):
    """An engine folder that cannot be used, or a device that cannot run the engine."""


class MemoryShortageError(BatchclsError):
    """A run that needs more memory than is available."""


def describe_shortage(error: BaseException) -> tuple[str, str] | None:
    """The exhausted resource and the limits that apply to it, if ``error`` means a shortage; else None.

    Python, its loader and the operating system each report a shortage in different words.
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
    """A GPU with less free memory than an engine needs."""


class VerificationError(BatchclsError):
    """An engine whose answers differ too often from the network that it was built from."""


class DecoderError(BatchclsError):
    """A decoder that fails for a reason other than its files."""


class SlidesError(BatchclsError):
    """A folder or file of slides with nothing to classify."""


class LabelsError(BatchclsError):
    """Labeled images, or a predictions file, that cannot be used as they are."""


class TrainingError(BatchclsError):
    """A training that cannot begin, or whose loss is not a finite number."""


class OutputError(BatchclsError):
    """An output that may not be written, or that the disk refuses."""


@contextmanager
def temporary_files() -> Iterator[None]:
    """Turn an `OSError` into an `OutputError` that names the folder for temporary files."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        with suppress(OSError):  # without a usable folder, the reason says so already
            reason = f"{tempfile.gettempdir()!r}: {reason}"
        raise OutputError(f"cannot write temporary files: {reason}; name another folder: export TMPDIR=DIR") from error


class InterruptedRunError(BatchclsError):
    """A run stopped by a signal; its finished rows are on disk."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number
