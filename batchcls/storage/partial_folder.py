"""The folder where an output comes about: its name, its lock, and what in it is ours."""

import fcntl
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

from batchcls.errors import OutputError
from batchcls.storage.own_folder import OwnFolder

LOCK, NOTE, WHOLE = "lock", "run.json", "whole.parquet"
FINISHED = "finished"
"""Stands from just before the whole file moves to its place until the parts are gone."""
LAST = (NOTE, FINISHED, LOCK)
"""What is removed after all parts, in this order, so that a kill in between leaves none whose run nobody knows."""
PART = re.compile(r"part-(\d{6,})\.arrow")
_PATIENCE_S, _POLL_S = 5.0, 0.05
"""A lock may be held by what a kill has left, which takes a moment to end."""


def partial_folder(path: Path) -> Path:
    """Where an output is until it is whole."""
    return path.with_name(path.name + ".partial")


def clear_left_over(path: Path, others: Iterable[str] = ()) -> None:
    """Remove what a run left that was killed once ``path`` was in its place; what another run has begun stays.

    Args:
        others: As of `ResumableOutput`.

    Raises:
        OutputError: If a run is writing ``path``, or something there is not ours.
    """
    folder, ours = partial_folder(path), Names(others)
    if not os.path.lexists(folder):
        return
    with refusals(folder):
        own, lock = locked_folder(path, ours)
        try:
            if not own.holds(NOTE):
                own.clear(ours, last=LAST)
        finally:
            os.close(lock)
            own.close()


class Names:
    """Which names are those of our files."""

    def __init__(self, others: Iterable[str] = ()) -> None:
        self._others = frozenset(others)

    def __call__(self, name: str) -> bool:
        return name in (*LAST, WHOLE) or name in self._others or PART.fullmatch(name) is not None


def locked_folder(path: Path, ours: Names) -> tuple[OwnFolder, int]:
    """The folder where ``path`` comes about, and its lock, which is held."""
    until = monotonic() + _PATIENCE_S
    while True:
        try:
            own = OwnFolder.made(partial_folder(path), mode=0o700)
            if (lock := _held_or_closed(own, ours)) is not None:
                return own, lock
        except FileNotFoundError:  # the run that held it has just finished, folder and all
            if monotonic() > until:
                raise
        if monotonic() > until:
            raise OutputError(f"another run is writing {str(path)!r}; wait for it, or stop it")
        sleep(_POLL_S)


def _held_or_closed(own: OwnFolder, ours: Names) -> int | None:
    lock = None
    try:
        lock = _held(own, ours)
    finally:
        if lock is None:
            own.close()
    return lock


def _held(own: OwnFolder, ours: Names) -> int | None:
    """The lock of a folder that is in its place and has nothing left over; None: try again."""
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
def refusals(folder: Path) -> Iterator[None]:
    """Turns what the operating system refuses into an error that says what is safe and how to go on."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        mend = "choose another --out"
        if os.path.isdir(folder):
            mend = "every finished part is kept there: mend that, then run the same command again"
        raise OutputError(f"cannot write {str(folder)!r}: {reason}; {mend}") from error
