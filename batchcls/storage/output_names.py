"""The names that belong to an output: of its unfinished parts, and of the JSON file beside it."""

from pathlib import Path
from typing import overload


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
