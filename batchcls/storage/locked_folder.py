"""The folder of an unfinished output: its name, its lock, and the names of its files."""

import fcntl
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

from batchcls.errors import OutputError
from batchcls.storage.file_set import INNER_FOLDERS, complete_move, remove_inner_folders
from batchcls.storage.output_names import beside_path, partial_folder
from batchcls.storage.owned_folder import OwnedFolder

LOCK_FILE, RUN_FILE, WHOLE_FILE = "lock", "run.json", "whole.parquet"
BESIDE_FILE = "beside.json"
"""Name of the whole JSON file that belongs beside the whole file, for outputs that have one."""
FINISHED_FILE = "finished"
"""Name of the file that exists from just before the whole file moves to its place until the parts are gone."""
REMOVED_LAST = (RUN_FILE, FINISHED_FILE, LOCK_FILE)
"""Files that are removed after all parts, in this order, so that no kill leaves parts of an unknown run."""
PART_NAME = re.compile(r"part-(\d{6,})\.arrow")
"""Names of the parts, with the number of each."""
_PATIENCE_S, _POLL_S = 5.0, 0.05
"""How long a held lock is waited for, and how often it is tried: a killed process's child takes a moment to end."""


def clear_leftovers(path: Path, others: Iterable[str] = ()) -> None:
    """Remove the folder of a run that was killed after ``path`` was in its place; a folder of an unfinished run stays.

    The JSON file that belongs beside ``path``, if the run had not moved it yet, is moved to its place before.

    Args:
        others: See `ResumableOutput`.

    Raises:
        OutputError: If a run is writing ``path``, or batchcls did not make all that is in the folder.
    """
    folder, is_own_name = partial_folder(path), OutputFileNames(others)
    if not os.path.lexists(folder):
        return
    with output_errors(folder):
        owned, lock = lock_folder(path, is_own_name)
        try:
            if not owned.holds(RUN_FILE):
                clear_output(owned, is_own_name)
        finally:
            os.close(lock)
            owned.close()


class OutputFileNames:
    """A predicate that says whether a name is that of a file of an unfinished output.

    Args:
        others: Names of files beside the parts; see `ResumableOutput`.
    """

    def __init__(self, others: Iterable[str] = ()) -> None:
        self._others = frozenset(others)

    def __call__(self, name: str) -> bool:
        return (
            name in (*REMOVED_LAST, WHOLE_FILE, BESIDE_FILE)
            or name in self._others
            or PART_NAME.fullmatch(name) is not None
        )


def lock_folder(path: Path, is_own_name: OutputFileNames) -> tuple[OwnedFolder, int]:
    """The folder of the unfinished output ``path``, and the descriptor of its lock, which is held.

    Raises:
        OutputError: If another run holds the lock, or batchcls did not make all that is in the folder.
    """
    until = monotonic() + _PATIENCE_S
    while True:
        try:
            owned = OwnedFolder.made(partial_folder(path), mode=0o700)
            if (lock := _try_lock_or_close(owned, path, is_own_name)) is not None:
                return owned, lock
        except FileNotFoundError:  # the run that held the lock has just finished, and removed the folder
            if monotonic() > until:
                raise
        if monotonic() > until:
            raise OutputError(f"another run is writing {str(path)!r}; wait for it, or stop it")
        sleep(_POLL_S)


def clear_output(owned: OwnedFolder, is_own_name: OutputFileNames) -> None:
    """Remove the folder of an unfinished output with all that is in it.

    Raises:
        OutputError: If batchcls did not make all that is in it.
    """
    owned.check_names(is_own_name, INNER_FOLDERS)
    remove_inner_folders(owned)
    owned.clear(is_own_name, last=REMOVED_LAST)


def _try_lock_or_close(owned: OwnedFolder, path: Path, is_own_name: OutputFileNames) -> int | None:
    lock = None
    try:
        lock = _try_lock(owned, path, is_own_name)
    finally:
        if lock is None:
            owned.close()
    return lock


def _try_lock(owned: OwnedFolder, path: Path, is_own_name: OutputFileNames) -> int | None:
    """The descriptor of a folder's lock, which is then held; None if it is to be tried again with a new folder.

    None is returned if another process holds the lock, if the folder has been removed meanwhile, or if it was that of a
    finished run and has now been removed.
    """
    lock = owned.lock_file(LOCK_FILE)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if owned.is_file(lock, LOCK_FILE) and owned.in_place:
            owned.check_names(is_own_name, INNER_FOLDERS)
            owned.sweep()
            if not owned.holds(FINISHED_FILE):
                return lock
            if owned.holds(WHOLE_FILE) or not complete_move(owned, path):  # killed before anything was in its place
                owned.remove(FINISHED_FILE)
                return lock
            if owned.holds(BESIDE_FILE):  # the run was killed between its two moves
                owned.move_out(BESIDE_FILE, beside_path(path))
            clear_output(owned, is_own_name)
    except BlockingIOError:
        pass
    except BaseException:
        os.close(lock)
        raise
    os.close(lock)
    return None


@contextmanager
def output_errors(folder: Path) -> Iterator[None]:
    """A context in which an OSError becomes an `OutputError` that says which rows are kept, and how to go on."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        mend = "choose another --out"
        if os.path.isdir(folder):
            mend = "every finished part is kept there: mend that, then run the same command again"
        raise OutputError(f"cannot write {str(folder)!r}: {reason}; {mend}") from error
