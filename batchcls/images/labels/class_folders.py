"""Which folders are the classes: those of a folder of images, or those inside its parts."""

import re
import shlex
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from batchcls.errors import LabelsError
from batchcls.images.labels.folder_names import (
    PARTS_CALLED,
    is_litter,
    is_one_of_many,
    is_part,
    is_view,
    label_of,
    part_of,
    proposed_parts,
)

NO_PARTS = "none"
_SHOWN = 4
_ORDER = ("train", "", "val", "test")

_Folders = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FolderLabels:
    """Images with the label that their folder gives them."""

    paths: list[str]
    labels: list[str]
    splits: list[str] | None
    """train, val or test; None where no folder is a part."""
    unlabelled: int
    """Images below no class folder, or below none that was named as a part."""


def folder_labels(
    source: str, paths: Sequence[str], split_folders: str = "", known: Collection[str] = ()
) -> FolderLabels:
    """Labels by folder: a folder's own folders are the classes, or those inside its parts.

    Parts are the folders that ``split_folders`` names or, where it is empty, all of them if all are called like train,
    val or test.

    Args:
        source: The folder, as the user named it.
        paths: Of image files below it, with ``/``.
        split_folders: ``PART=FOLDER,...``, which may name a part more than once; ``none``: no folder is a part,
            whatever it is called.
        known: Labels that there are; folders of these names are classes.

    Raises:
        LabelsError: If the folders are no classes, as far as their names tell, or ``split_folders`` does not fit them.
    """
    folders = {path: tuple(path.split("/")[:-1]) for path in paths}
    folders = {path: names for path, names in folders.items() if not any(map(is_litter, names))}
    tops = {names[0] for names in folders.values() if names}
    parts: dict[_Folders, str] = {(): ""}
    if split_folders and split_folders != NO_PARTS:
        parts = _named_parts(source, split_folders, folders.values())
    elif not split_folders and tops and all(top.lower() in PARTS_CALLED for top in tops):
        called = sorted((_ORDER.index(PARTS_CALLED[top.lower()]), top) for top in tops)
        parts = {(top,): PARTS_CALLED[top.lower()] for _, top in called}
    inside = {
        path: (part, names[len(part) :]) for path, names in folders.items() for part in parts if _is_in(names, part)
    }
    if split_folders != NO_PARTS:
        _check(_Below(source, parts, {names for _, names in inside.values()}), bool(split_folders), known)
    rows = [(path, label_of(names[0]), parts[part]) for path, (part, names) in inside.items() if names]
    splits = [part for _, _, part in rows] if () not in parts else None
    return FolderLabels([row[0] for row in rows], [row[1] for row in rows], splits, len(folders) - len(rows))


def _named_parts(source: str, split_folders: str, folders: Collection[_Folders]) -> dict[_Folders, str]:
    parts: dict[_Folders, str] = {}
    for pair in re.split(r",(?=[^,=/]+=)", split_folders):  # a folder's name may hold a comma
        part, _, name = pair.partition("=")
        if part.strip().lower() not in PARTS_CALLED or not name.strip("./ "):
            raise LabelsError(
                f"--split-folders {split_folders!r} is not understood at {pair!r}; write PART=FOLDER,..., such as "
                f"train=FOLDER,test=FOLDER, where a part is train, val or test; or {NO_PARTS}"
            )
        wanted = tuple(piece for piece in name.split("/") if piece not in ("", "."))
        if any(_is_in(wanted, other) or _is_in(other, wanted) for other in parts):
            raise LabelsError(f"--split-folders {split_folders!r} names {name!r}, or a folder in it, more than once")
        if not any(_is_in(names, wanted) for names in folders):
            tops = sorted({names[0] for names in folders if names})
            raise LabelsError(f"--split-folders names {name!r}; {source!r} has no such folder of images: {_few(tops)}")
        parts[wanted] = PARTS_CALLED[part.strip().lower()]
    return parts


def _is_in(names: _Folders, folder: _Folders) -> bool:
    return names[: len(folder)] == folder


class _Below:
    """The folders that would be the classes, and what is inside them."""

    def __init__(self, source: str, parts: Mapping[_Folders, str], folders: Collection[_Folders]) -> None:
        self.source = source
        self.parts = {"/".join(folder): part for folder, part in parts.items() if part}
        self.above = next(iter(self.parts), "")
        self.folders = folders
        self.tops: dict[str, set[str]] = {}
        """By the name of a would-be class, the folders directly inside it."""
        for names in folders:
            if names:
                self.tops.setdefault(names[0], set()).update(names[1:2])
        self.names = sorted(self.tops)

    def path(self, *names: str) -> str:
        """Where a folder stands."""
        return repr("/".join(filter(None, (self.source.rstrip("/"), self.above, *names))))

    def way_in(self, *names: str) -> str:
        """How to say that a folder's folders are the classes."""
        if not self.parts:
            return f"name the folder that holds the classes, such as {self.path(*names)}"
        inner = ",".join("/".join((f"{part}={folder}", *names)) for folder, part in self.parts.items())
        return f"name the folders that hold the classes, such as --split-folders {shlex.quote(inner)}"


def _check(below: _Below, explicit: bool, known: Collection[str]) -> None:
    """Refuse folders that are no classes; where parts were named, those alone that are called like parts or views."""
    if not below.names:
        if below.parts and below.folders:
            raise _unsorted(below, list(below.parts))
        return
    if {label_of(name) for name in below.names} <= {label_of(label) for label in known}:
        return
    if not explicit:
        _check_again(below)
        _check_deeper_parts(below)
    _check_names(below, explicit)
    if not explicit:
        _check_wrapping(below)
        _check_repeated(below)


def _check_names(below: _Below, explicit: bool) -> None:
    """Refuse folders that are all called like parts or views, and one so called with folders inside it."""
    called = [name for name in below.names if is_part(name) or is_view(name)]
    holding = [name for name in called if sum(not is_one_of_many(child) for child in below.tops[name]) > 1]
    if len(called) == len(below.names) or (holding and not explicit):
        inside = sorted(set().union(*(below.tops[name] for name in called)))
        if not inside:
            raise _unsorted(below, called)
        what = f"{_few(called)}, called like parts or views of a data set, not like classes; inside are {_few(inside)}"
        raise _refused(below, what, called, nested=all(map(is_part, inside)))


def _check_deeper_parts(below: _Below) -> None:
    """Refuse a tree in which train, val and test stand further below."""
    inside: dict[_Folders, set[str]] = {}
    for names in below.folders:
        for depth in range(1, len(names)):
            inside.setdefault(names[:depth], set()).add(names[depth])
    holders = [
        folder
        for folder, names in sorted(inside.items())
        if len({PARTS_CALLED.get(name.lower()) for name in names} - {None}) > 1
    ]
    if not holders:
        return
    inner, first = _few(sorted(inside[holders[0]])), below.path(*holders[0])
    if len(holders) == 1 or any(map(is_part, below.names)):
        more = " and others" if len(holders) > 1 else ""
        raise LabelsError(
            f"{below.path()} holds no classes: {inner}, called like parts, are inside {first}{more}; name {first}"
        )
    raise LabelsError(
        f"{below.path()} has the parts {inner} inside {first} and others; put the classes "
        "inside the parts, or give a table with the columns path, label and split; or, if these parts do not matter: "
        f"--split-folders {NO_PARTS}"
    )


def _check_wrapping(below: _Below) -> None:
    """Refuse one folder that holds all the others."""
    names: _Folders = ()
    inside = set(below.names)
    while len(inside) == 1:
        names += tuple(inside)
        inside = {other[len(names)] for other in below.folders if _is_in(other, names) and len(other) > len(names)}
    if names and len({name for name in inside if not is_one_of_many(name)}) > 1:
        raise LabelsError(
            f"{below.path()} holds one folder alone, which would be the one class; inside it are "
            f"{_few(sorted(inside))}: {below.way_in(*names)}; or, if that folder is a class: --split-folders {NO_PARTS}"
        )


def _check_again(below: _Below) -> None:
    """Refuse folders of which one holds folders that are called like the others."""
    tops = {_folded(name) for name in below.names}
    for name in below.names:
        if again := sorted(child for child in below.tops[name] if _folded(child) in tops - {_folded(name)}):
            raise LabelsError(
                f"{below.path()} holds {_few(below.names)}, and {name!r} holds {_few(again)} once more; move {name!r} "
                f"elsewhere, or name it alone, {below.path(name)}; or, if it is a class: --split-folders {NO_PARTS}"
            )


def _check_repeated(below: _Below) -> None:
    """Refuse folders inside which the same names stand, directly or inside one folder that all of them have."""
    shared: _Folders = ()
    inside_many = False
    for depth in range(1, max(map(len, below.folders))):
        deep = [names for names in below.folders if len(names) > depth]
        spelled = {_folded(names[depth]): names[depth] for names in deep}
        counts = Counter(child for _, child in {(names[0], _folded(names[depth])) for names in deep})
        every = [child for child in counts if not is_one_of_many(child)]
        repeated = sorted(spelled[child] for child in every if counts[child] > 1)
        if len(every) > 1 and repeated and 2 * len(repeated) >= len(every):
            if all(map(is_view, repeated)):
                raise LabelsError(
                    f"{below.path()} has the views {_few(repeated)} inside several folders, so that one image could "
                    "train and be judged; keep one view, or, if they show different images: "
                    f"--split-folders {NO_PARTS}"
                )
            if not inside_many:
                what = f"{_few(below.names)}, and more than one of them holds {_few(repeated)}"
                raise _refused(below, what, shared=shared)
        if len(every) > 1:
            return
        inside_many |= len(every) < len(counts)
        shared += tuple(spelled[child] for child in every)


def _unsorted(below: _Below, names: Sequence[str]) -> LabelsError:
    return LabelsError(
        f"{below.source!r} holds {_few(names)}, called like parts or views of a data set, with images and no class "
        "folders in them; sort them by class, or give a table with the columns path, label and split; or, if these "
        f"are the classes: --split-folders {NO_PARTS}"
    )


def _refused(
    below: _Below, what: str, parts: Sequence[str] = (), *, shared: _Folders = (), nested: bool = False
) -> LabelsError:
    """``below`` holds ``what``, of which ``parts`` are called like parts or views; with the ways out."""
    parts = sorted(parts, key=lambda name: _ORDER.index(part_of(name)))
    first = next((name for name in (*parts, *below.names) if below.tops[name]), below.names[0])
    ways = [below.way_in(first, *shared)]
    if not (nested or below.parts or any(map(is_view, below.names))):
        ways.append(f"say which folder is which part: --split-folders {shlex.quote(proposed_parts(parts))}")
    way = "a table with the columns path, label and split" if below.parts else f"--split-folders {NO_PARTS}"
    return LabelsError(
        f"{below.path()} holds {what}: {', or '.join(ways)}; or, if {_few(below.names)} are the classes: {way}"
    )


def _folded(name: str) -> str:
    return label_of(name).casefold()


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:_SHOWN]))
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown
