"""The folder of an unfinished output: its name, its lock, and the names of its files."""

import fcntl
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

from batchcls.errors import OutputError
from batchcls.storage.owned_folder import OwnedFolder

LOCK, NOTE, WHOLE = "lock", "run.json", "whole.parquet"
FINISHED = "finished"
"""Name of the file that exists from just before the whole file moves to its place until the parts are gone."""
LAST = (NOTE, FINISHED, LOCK)
"""Files that are removed after all parts, in this order, so that no kill leaves parts of an unknown run."""
PART = re.compile(r"part-(\d{6,})\.arrow")
_PATIENCE_S, _POLL_S = 5.0, 0.05
"""A lock may be held by a child of a killed process, which takes a moment to end."""


def partial_folder(path: Path) -> Path:
    """The folder of an output that is not finished."""
    return path.with_name(path.name + ".partial")


def clear_leftovers(path: Path, others: Iterable[str] = ()) -> None:
    """Remove the folder of a run that was killed after ``path`` was in its place; one that another run has begun stays.

    Args:
        others: See `ResumableOutput`.

    Raises:
        OutputError: If a run is writing ``path``, or batchcls did not make all that is in the folder.
    """
    folder, ours = partial_folder(path), OwnedNames(others)
    if not os.path.lexists(folder):
        return
    with output_errors(folder):
        own, lock = lock_folder(path, ours)
        try:
            if not own.holds(NOTE):
                own.clear(ours, last=LAST)
        finally:
            os.close(lock)
            own.close()


class OwnedNames:
    """Whether a name is one of the files of an unfinished output."""

    def __init__(self, others: Iterable[str] = ()) -> None:
        self._others = frozenset(others)

    def __call__(self, name: str) -> bool:
        return name in (*LAST, WHOLE) or name in self._others or PART.fullmatch(name) is not None


def lock_folder(path: Path, ours: OwnedNames) -> tuple[OwnedFolder, int]:
    """The folder of the unfinished output ``path``, and the descriptor of its lock, which is held.

    Raises:
        OutputError: If another run holds the lock, or batchcls did not make all that is in the folder.
    """
    until = monotonic() + _PATIENCE_S
    while True:
        try:
            own = OwnedFolder.made(partial_folder(path), mode=0o700)
            if (lock := _held_or_closed(own, ours)) is not None:
                return own, lock
        except FileNotFoundError:  # the run that held it has just finished, folder and all
            if monotonic() > until:
                raise
        if monotonic() > until:
            raise OutputError(f"another run is writing {str(path)!r}; wait for it, or stop it")
        sleep(_POLL_S)


def _held_or_closed(own: OwnedFolder, ours: OwnedNames) -> int | None:
    lock = None
    try:
        lock = _held(own, ours)
    finally:
        if lock is None:
            own.close()
    return lock


def _held(own: OwnedFolder, ours: OwnedNames) -> int | None:
    """The descriptor of a folder's lock, once the folder is in its place and nothing is left over; None: try again."""
    lock = own.lock_file(LOCK)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if own.is_file(lock, LOCK) and own.in_place:
            own.check_names(ours)
            own.sweep()
            if not own.holds(FINISHED):
                return lock
            if own.holds(WHOLE):  # killed before the file was in its place
                own.remove(FINISHED)
                return lock
            own.clear(ours, last=LAST)
    except BlockingIOError:
        pass
    except BaseException:
        os.close(lock)
        raise
    os.close(lock)
    return None


@contextmanager
def output_errors(folder: Path) -> Iterator[None]:
    """A context in which an OSError becomes an `OutputError` that says what is safe, and how to go on."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        mend = "choose another --out"
        if os.path.isdir(folder):
            mend = "every finished part is kept there: mend that, then run the same command again"
        raise OutputError(f"cannot write {str(folder)!r}: {reason}; {mend}") from error
