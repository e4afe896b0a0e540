"""The names that belong to an output: of its unfinished parts, and of the JSON file beside it."""

import os
from pathlib import Path
from typing import overload

ROWS_PER_FILE = 1_000_000
"""Most rows of a file in an output that is a folder, unless the user says otherwise."""


def names_folder(out: str) -> bool:
    """Whether the user names an output as a folder: by a slash at the end, or because it is one.

    A folder whose name has an ending may be in the way of a file of that name, and counts only with a slash.
    """
    return out.endswith("/") or (os.path.isdir(out) and not os.path.splitext(out)[1])


@overload
def partial_folder(path: Path) -> Path: ...
@overload
def partial_folder(path: str) -> str: ...
@overload
def partial_folder(path: Path | str) -> Path | str: ...
def partial_folder(path: Path | str) -> Path | str:
    """The folder of an output that is not finished; text is a URL, and stays one."""
    return _with_ending(path, ".partial")


@overload
def beside_path(path: Path) -> Path: ...
@overload
def beside_path(path: str) -> str: ...
@overload
def beside_path(path: Path | str) -> Path | str: ...
def beside_path(path: Path | str) -> Path | str:
    """The JSON file beside an output; text is a URL, and stays one."""
    return _with_ending(path, ".json")


def _with_ending(path: Path | str, ending: str) -> Path | str:
    return path + ending if isinstance(path, str) else path.with_name(path.name + ending)
