"""Labels from class folders, which stand in a folder of images or inside its parts, such as train and test."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from batchcls.errors import LabelsError
from batchcls.images.labels.folder_checks import (
    NO_PARTS,
    SPLIT_ORDER,
    CandidateClasses,
    Folders,
    check_classes,
    is_within,
    quoted,
)
from batchcls.images.labels.name_patterns import (
    SPLITS_BY_NAME,
    is_system_folder,
    label_of,
)


@dataclass(frozen=True, slots=True)
class FolderLabels:
    """Images of class folders with their labels and splits."""

    paths: list[str]
    """Path of each image below the folder, with ``/`` as separator."""
    labels: list[str]
    """Label of each image."""
    splits: list[str] | None
    """Split of each image, train, val or test; None if no folder is a part."""
    unlabeled: int
    """Number of images outside of all class folders, or outside of all folders that the user named as parts."""


def folder_labels(
    source: str, paths: Sequence[str], split_folders: str = "", known: Collection[str] = ()
) -> FolderLabels:
    """The images of a folder, labeled by the folders inside it, or by those inside its parts.

    Parts are the folders that ``split_folders`` names. If it is empty, all folders are parts, provided that all have
    names like train, val or test.

    Args:
        source: The folder, as the user named it.
        paths: Paths of image files below the folder, with ``/`` as separator.
        split_folders: ``PART=FOLDER,...``, which may name a part more than once; ``none``: no folder is a part,
            whatever its name.
        known: Labels of an engine or model; folders with these names are classes.

    Raises:
        LabelsError: If the folders' names suggest that they are no classes, or ``split_folders`` does not fit them.
    """
    folders = {path: tuple(path.split("/")[:-1]) for path in paths}
    folders = {path: names for path, names in folders.items() if not any(map(is_system_folder, names))}
    tops = {names[0] for names in folders.values() if names}
    parts: dict[Folders, str] = {(): ""}
    if split_folders and split_folders != NO_PARTS:
        parts = _named_parts(source, split_folders, folders.values())
    elif not split_folders and tops and all(top.lower() in SPLITS_BY_NAME for top in tops):
        called = sorted((SPLIT_ORDER.index(SPLITS_BY_NAME[top.lower()]), top) for top in tops)
        parts = {(top,): SPLITS_BY_NAME[top.lower()] for _, top in called}
    inside = {
        path: (part, names[len(part) :]) for path, names in folders.items() for part in parts if is_within(names, part)
    }
    if split_folders != NO_PARTS:
        check_classes(
            CandidateClasses(source, parts, {names for _, names in inside.values()}), bool(split_folders), known
        )
    rows = [(path, label_of(names[0]), parts[part]) for path, (part, names) in inside.items() if names]
    splits = [part for _, _, part in rows] if () not in parts else None
    return FolderLabels([row[0] for row in rows], [row[1] for row in rows], splits, len(folders) - len(rows))


def _named_parts(source: str, split_folders: str, folders: Collection[Folders]) -> dict[Folders, str]:
    """The part, train, val or test, of each folder that ``split_folders`` names."""
    parts: dict[Folders, str] = {}
    for pair in re.split(r",(?=[^,=/]+=)", split_folders):  # a folder's name may hold a comma
        part, _, name = pair.partition("=")
        if part.strip().lower() not in SPLITS_BY_NAME or not name.strip("./ "):
            raise LabelsError(
                f"--split-folders {split_folders!r} is not understood at {pair!r}; write PART=FOLDER,..., such as "
                f"train=FOLDER,test=FOLDER, where a part is train, val or test; or {NO_PARTS}"
            )
        part_folder = tuple(piece for piece in name.split("/") if piece not in ("", "."))
        if any(is_within(part_folder, other) or is_within(other, part_folder) for other in parts):
            raise LabelsError(f"--split-folders {split_folders!r} names {name!r}, or a folder in it, more than once")
        if not any(is_within(names, part_folder) for names in folders):
            tops = sorted({names[0] for names in folders if names})
            raise LabelsError(
                f"--split-folders names {name!r}; {source!r} has no such folder of images: {quoted(tops)}"
            )
        parts[part_folder] = SPLITS_BY_NAME[part.strip().lower()]
    return parts
