"""A finished output that is a folder of numbered files: built among the parts, and put in its place at once."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from batchcls.errors import OutputError
from batchcls.storage.atomic import folder_handle, kind_of, writing
from batchcls.storage.owned_folder import OwnedFolder

_NEW, _REPLACED = "whole", "replaced"
INNER_FOLDERS = (_NEW, _REPLACED)
"""Folders that may be in the folder of an unfinished output: of its finished files, and of those that they replace."""
_FILE_NAME = re.compile(r"part-(\d{5,9})\.parquet")


def file_name(number: int) -> str:
    """The name of the file of that number, counted from 0."""
    return f"part-{number:05d}.parquet"


def numbered_files(folder: Path) -> list[Path]:
    """The files of an output in order; files with other names are left out.

    Raises:
        OSError: If the folder cannot be listed.
    """
    numbers = {int(match[1]): name for name in os.listdir(folder) if (match := _FILE_NAME.fullmatch(name))}
    return [folder / numbers[number] for number in sorted(numbers)]


def check_replaceable_folder(path: Path) -> None:
    """Refuse to replace anything but a folder of numbered files; a path where nothing stands is fine.

    Raises:
        OutputError: If ``path`` is no folder, or holds anything else.
    """
    with writing(path):
        kind = kind_of(path)
        names = sorted(os.listdir(path)) if kind == "a folder" else []
    if kind not in (None, "a folder"):
        raise OutputError(
            f"{str(path)!r} is {kind}, where a folder of predictions is to be; move it away, or choose another --out"
        )
    for name in names:
        if (kind := kind_of(path / name)) != "a file" or not _FILE_NAME.fullmatch(name):
            raise OutputError(
                f"{str(path / name)!r} is {kind} that no run with --rows-per-file made; nothing was touched: move it "
                "away, or choose another --out"
            )


@contextmanager
def writing_files(own: OwnedFolder) -> Iterator[OwnedFolder]:
    """A context that yields an empty folder for the files of the finished output; `move_files` comes next.

    Args:
        own: The folder of the unfinished output.
    """
    remove_inner_folders(own)
    with OwnedFolder.made(own.path / _NEW) as folder:
        yield folder


def move_files(own: OwnedFolder, path: Path) -> bool:
    """Move the folder of `writing_files`, if there is one, to ``path``, and what it replaces among the parts.

    Returns:
        Whether there was one.

    Raises:
        OutputError: If something other than a folder of numbered files has that path.
    """
    if not own.holds(_NEW):
        return False
    if kind_of(path) is not None:
        check_replaceable_folder(path)
        os.rename(path, own.path / _REPLACED)
    _move_new(own, path)
    return True


def complete_move(own: OwnedFolder, path: Path) -> bool:
    """Complete what a killed process had begun by `move_files`.

    Returns:
        Whether no files are left to move; False if the process had moved none.
    """
    if not own.holds(_NEW):
        return True
    if not own.holds(_REPLACED) or kind_of(path) is not None:
        return False
    _move_new(own, path)
    return True


def remove_inner_folders(own: OwnedFolder) -> None:
    """Remove the folders of finished and of replaced files.

    Raises:
        OutputError: If one of them holds anything else, which is left in its place.
    """
    for name in INNER_FOLDERS:
        if own.holds(name):
            with OwnedFolder(own.path / name) as folder:
                folder.clear(_FILE_NAME.fullmatch)


def _move_new(own: OwnedFolder, path: Path) -> None:
    os.rename(own.path / _NEW, path)
    with folder_handle(path.parent) as parent:
        os.fsync(parent)
