"""The output folder of an explanation: overlays, a contact sheet and a table, replaced together."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from batchcls.errors import OutputError
from batchcls.storage.atomic import kind_of, writing
from batchcls.storage.file_names import printable
from batchcls.storage.owned_folder import OwnedFolder
from batchcls.storage.temporary_folders import temporary_folder

CONTACT_SHEET = "contact_sheet.jpg"
TABLE = "explained.csv"
_OVERLAY = re.compile(r"\d{4,}_.*\.cam\.png")
_MAX_STEM_LENGTH = 48


def overlay_name(number: int, path: str) -> str:
    """A file name for an overlay that is valid in every file system, and unique by its number.

    Args:
        number: Position of the image in the explanation, from 1.
        path: Path of the image.
    """
    stem = os.path.splitext(os.path.basename(printable(path)))[0]
    safe = re.sub(r"[^\w-]+", "_", stem).strip("_")[:_MAX_STEM_LENGTH] or "image"
    return f"{number:04d}_{safe}.cam.png"


def is_explanation_file(path: Path, out: Path) -> bool:
    """Whether ``path`` is in the folder ``out`` and has the name of a file that an explanation writes."""
    return _is_output_name(path.name) and os.path.realpath(path.parent) == os.path.realpath(out)


def check_explanation_folder(out: Path, *, overwrite: bool) -> None:
    """Refuse an output folder that is not empty, unless the user asked to replace its files.

    Raises:
        OutputError: If ``out`` is no folder, or is not empty and ``overwrite`` is false.
    """
    if os.path.exists(out) and (not out.is_dir() or (any(out.iterdir()) and not overwrite)):
        raise OutputError(f"{str(out)!r} is not empty; choose another --out, or replace what is there with --overwrite")


@contextmanager
def open_explanation_folder(out: Path) -> Iterator[Path]:
    """A context that yields a new folder, whose files are moved into ``out`` if no error is raised.

    Then files of an earlier explanation are removed from ``out``; files of other names stay.

    Raises:
        OutputError: If the files cannot be written, or something in ``out`` that would be replaced is no file.
    """
    out = out.absolute()
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        if kind_of(out) is not None:
            OwnedFolder(out).close()  # refuses a folder of another user before any image is explained
        with temporary_folder(out.parent) as scratch:
            folder = scratch / "new"
            folder.mkdir()
            yield folder
            if kind_of(out) is None:
                folder.rename(out)
                return
            with OwnedFolder(folder) as new, OwnedFolder(out) as existing:
                _replace(new, existing)


def _replace(new: OwnedFolder, existing: OwnedFolder) -> None:
    names = new.names()
    outdated = [name for name in existing.names() if name not in names and _is_output_name(name)]
    for name in (*names, *outdated):
        existing.check_file(name)
    for name in sorted(names, key=lambda name: name == TABLE):  # the table last, which names the overlays
        new.move(name, existing)
    for name in outdated:
        existing.remove(name)


def _is_output_name(name: str) -> bool:
    return name in (CONTACT_SHEET, TABLE) or _OVERLAY.fullmatch(name) is not None
