"""Labels from the names of class folders, in the order in which a training by torchvision's ImageFolder has them."""

import os
import shlex
from pathlib import Path

from batchcls.errors import RecipeError

_NO_CLASSES = frozenset(("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"))
"""Names of folders that operating systems create by themselves."""
_PARTS = frozenset(("train", "training", "val", "valid", "validation", "dev", "test", "testing", "holdout"))
"""Names, in lower case, of the parts of a data set, inside which the class folders are."""


def labels_of_folder(folder: Path) -> tuple[str, ...]:
    """The names of the folders in ``folder``, hidden ones aside, sorted as text, as ImageFolder sorts them.

    Folders of numbers are no exception: ``10`` comes before ``2``.

    Raises:
        RecipeError: If there is no folder in it, or the folders are parts of a data set.
    """
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_dir()]
    except OSError as error:
        raise RecipeError(f"folder of class folders {str(folder)!r} cannot be read: {error}") from error
    labels = sorted(name for name in names if not name.startswith(".") and name not in _NO_CLASSES)
    if not labels:
        raise RecipeError(f"{str(folder)!r} has no folder in it, so it names no classes; name the labels: A,B,...")
    if all(label.lower() in _PARTS for label in labels):
        first = next((label for label in labels if label.lower().startswith("train")), labels[0])
        raise RecipeError(
            f"{str(folder)!r} holds {', '.join(map(repr, labels))}, which are parts of a data set and no classes; name "
            f"the folder that holds the classes: --labels {shlex.quote(str(folder / first))}"
        )
    return tuple(labels)


def folder_labels_note(text: str, labels: tuple[str, ...]) -> str:
    """A line on labels that were named by a folder, which says so where their order is not that of their numbers."""
    in_order = not all(label.isdecimal() for label in labels) or sorted(labels, key=int) == list(labels)
    by_text = "" if in_order else ", sorted as text, as ImageFolder does, not by number"
    return f"labels of the folders in {text!r}{by_text}: {', '.join(labels)}"
