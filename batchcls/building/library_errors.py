"""Errors of libraries that make networks from configurations, as errors of the trained file."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from batchcls.errors import CheckpointError

FAILURES = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    RuntimeError,
    ArithmeticError,
    AssertionError,
    NotImplementedError,
    ImportError,
    OSError,
    MemoryError,
)
"""Exceptions that libraries raise for configurations that make no sense, for which they have no base class."""
_LONGEST_REASON = 300


@contextmanager
def translated(
    path: Path,
    failing: str,
    failures: tuple[type[Exception], ...] = FAILURES,
    *,
    reason_of: Callable[[Exception], str] = str,
) -> Iterator[None]:
    """A context that turns a library's exceptions into a `CheckpointError`, and hides the library's warnings.

    Args:
        path: The trained file.
        failing: What the file fails to be, such as "cannot be made by Keras".
        failures: The library's exceptions.
        reason_of: Function from an exception to the part of its text that tells the reason.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except failures as error:
        reason = " ".join(reason_of(error).split())[:_LONGEST_REASON] or type(error).__name__
        raise CheckpointError(f"{str(path)!r} {failing}: {reason}") from error
