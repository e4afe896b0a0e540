"""Refuse folders whose names suggest parts, views or patients instead of classes, with advice for the user."""

import shlex
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from batchcls.errors import LabelsError
from batchcls.images.labels.name_patterns import (
    SPLITS_BY_NAME,
    is_one_of_many,
    label_of,
    proposed_splits,
    suggested_split,
    suggests_split,
    suggests_view,
)

NO_PARTS = "none"
"""Value of --split-folders for: no folder is a part of the data set, whatever its name."""
SPLIT_ORDER = ("train", "", "val", "test")
"""Order in which messages name parts; the empty text stands for a folder whose name suggests no part."""
_MOST_NAMES = 4

Folders = tuple[str, ...]
"""Names of the folders on the way to a file, the outermost first."""


def is_within(names: Folders, folder: Folders) -> bool:
    """Whether ``names`` lead to ``folder`` or to a folder inside it."""
    return names[: len(folder)] == folder


class CandidateClasses:
    """The folders that would become the classes, with the folders inside them.

    Args:
        source: The folder of images, as the user named it.
        parts: Part (train, val or test) by folder; an empty text for a folder that is no part.
        folders: Every folder that holds images, relative to ``source`` or to its part.
    """

    def __init__(self, source: str, parts: Mapping[Folders, str], folders: Collection[Folders]) -> None:
        self.source = source
        self.parts = {"/".join(folder): part for folder, part in parts.items() if part}
        self.above = next(iter(self.parts), "")
        self.folders = folders
        self.tops: dict[str, set[str]] = {}
        """Names of the folders directly inside each candidate, by the candidate's name."""
        for names in folders:
            if names:
                self.tops.setdefault(names[0], set()).update(names[1:2])
        self.names = sorted(self.tops)

    def path(self, *names: str) -> str:
        """The quoted path of a folder that stands below the first part."""
        return repr("/".join(filter(None, (self.source.rstrip("/"), self.above, *names))))

    def way_in(self, *names: str) -> str:
        """An instruction for the user by which the folders inside the folder ``names`` become the classes."""
        if not self.parts:
            return f"name the folder that holds the classes, such as {self.path(*names)}"
        inner = ",".join("/".join((f"{part}={folder}", *names)) for folder, part in self.parts.items())
        return f"name the folders that hold the classes, such as --split-folders {shlex.quote(inner)}"


def check_classes(classes: CandidateClasses, explicit: bool, known: Collection[str]) -> None:
    """Refuse folders that are no classes.

    Args:
        classes: Candidates for classes.
        explicit: Whether the user has named parts; then only folders called like parts or views are refused.
        known: Labels of an engine or model; candidates with these names are classes.

    Raises:
        LabelsError: If the candidates are no classes; the message tells the user what to do.
    """
    if not classes.names:
        if classes.parts and classes.folders:
            raise _no_classes(classes, list(classes.parts))
        return
    if {label_of(name) for name in classes.names} <= {label_of(label) for label in known}:
        return
    if not explicit:
        _check_nested_repeats(classes)
        _check_deeper_parts(classes)
    _check_names(classes, explicit)
    if not explicit:
        _check_wrapping(classes)
        _check_shared_names(classes)


def _check_names(classes: CandidateClasses, explicit: bool) -> None:
    """Refuse folders if all are called like parts or views, or if one so called has several folders inside."""
    suspects = [name for name in classes.names if suggests_split(name) or suggests_view(name)]
    suspects_with_folders = [
        name for name in suspects if sum(not is_one_of_many(child) for child in classes.tops[name]) > 1
    ]
    if len(suspects) == len(classes.names) or (suspects_with_folders and not explicit):
        inside = sorted(set().union(*(classes.tops[name] for name in suspects)))
        if not inside:
            raise _no_classes(classes, suspects)
        description = (
            f"{quoted(suspects)}, called like parts or views of a data set, not like classes; inside are "
            f"{quoted(inside)}"
        )
        raise _refusal(classes, description, suspects, nested=all(map(suggests_split, inside)))


def _check_deeper_parts(classes: CandidateClasses) -> None:
    """Refuse a tree in which train, val and test stand further down."""
    inside: dict[Folders, set[str]] = {}
    for names in classes.folders:
        for depth in range(1, len(names)):
            inside.setdefault(names[:depth], set()).add(names[depth])
    holders = [
        folder
        for folder, names in sorted(inside.items())
        if len({SPLITS_BY_NAME.get(name.lower()) for name in names} - {None}) > 1
    ]
    if not holders:
        return
    inner, first = quoted(sorted(inside[holders[0]])), classes.path(*holders[0])
    if len(holders) == 1 or any(map(suggests_split, classes.names)):
        more = " and others" if len(holders) > 1 else ""
        raise LabelsError(
            f"{classes.path()} holds no classes: {inner}, called like parts, are inside {first}{more}; name {first}"
        )
    raise LabelsError(
        f"{classes.path()} has the parts {inner} inside {first} and others; put the classes "
        "inside the parts, or give a table with the columns path, label and split; or, if these parts do not matter: "
        f"--split-folders {NO_PARTS}"
    )


def _check_wrapping(classes: CandidateClasses) -> None:
    """Refuse one folder that holds all the others."""
    names: Folders = ()
    inside = set(classes.names)
    while len(inside) == 1:
        names += tuple(inside)
        inside = {other[len(names)] for other in classes.folders if is_within(other, names) and len(other) > len(names)}
    if names and len({name for name in inside if not is_one_of_many(name)}) > 1:
        raise LabelsError(
            f"{classes.path()} holds one folder alone, which would be the one class; inside it are "
            f"{quoted(sorted(inside))}: {classes.way_in(*names)}; or, if that folder is a class: "
            f"--split-folders {NO_PARTS}"
        )


def _check_nested_repeats(classes: CandidateClasses) -> None:
    """Refuse folders of which one holds folders that are called like the others."""
    tops = {_case_folded(name) for name in classes.names}
    for name in classes.names:
        if repeated := sorted(
            child for child in classes.tops[name] if _case_folded(child) in tops - {_case_folded(name)}
        ):
            raise LabelsError(
                f"{classes.path()} holds {quoted(classes.names)}, and {name!r} holds {quoted(repeated)} once more; "
                f"move {name!r} elsewhere, or name it alone, {classes.path(name)}; or, if it is a class: "
                f"--split-folders {NO_PARTS}"
            )


def _check_shared_names(classes: CandidateClasses) -> None:
    """Refuse folders inside which the same names stand, directly or inside one folder that all of them have."""
    shared: Folders = ()
    inside_many = False
    for depth in range(1, max(map(len, classes.folders))):
        deep = [names for names in classes.folders if len(names) > depth]
        spelled = {_case_folded(names[depth]): names[depth] for names in deep}
        counts = Counter(child for _, child in {(names[0], _case_folded(names[depth])) for names in deep})
        every = [child for child in counts if not is_one_of_many(child)]
        repeated = sorted(spelled[child] for child in every if counts[child] > 1)
        if len(every) > 1 and repeated and 2 * len(repeated) >= len(every):
            if all(map(suggests_view, repeated)):
                raise LabelsError(
                    f"{classes.path()} has the views {quoted(repeated)} inside several folders, so that one image "
                    "could train and be judged; keep one view, or, if they show different images: "
                    f"--split-folders {NO_PARTS}"
                )
            if not inside_many:
                description = f"{quoted(classes.names)}, and more than one of them holds {quoted(repeated)}"
                raise _refusal(classes, description, shared=shared)
        if len(every) > 1:
            return
        inside_many |= len(every) < len(counts)
        shared += tuple(spelled[child] for child in every)


def _no_classes(classes: CandidateClasses, names: Sequence[str]) -> LabelsError:
    return LabelsError(
        f"{classes.source!r} holds {quoted(names)}, called like parts or views of a data set, with images and no "
        "class folders in them; sort them by class, or give a table with the columns path, label and split; or, if "
        f"these are the classes: --split-folders {NO_PARTS}"
    )


def _refusal(
    classes: CandidateClasses,
    description: str,
    parts: Sequence[str] = (),
    *,
    shared: Folders = (),
    nested: bool = False,
) -> LabelsError:
    """The error for candidates that are no classes, with advice for the user.

    Args:
        description: Contents of the folder, in words.
        parts: The candidates that are called like parts or views.
        shared: Names of nested folders that all candidates have inside, above the true classes.
        nested: Whether the folders inside are called like parts as well.
    """
    parts = sorted(parts, key=lambda name: SPLIT_ORDER.index(suggested_split(name)))
    first = next((name for name in (*parts, *classes.names) if classes.tops[name]), classes.names[0])
    ways = [classes.way_in(first, *shared)]
    if not (nested or classes.parts or any(map(suggests_view, classes.names))):
        ways.append(f"say which folder is which part: --split-folders {shlex.quote(proposed_splits(parts))}")
    way = "a table with the columns path, label and split" if classes.parts else f"--split-folders {NO_PARTS}"
    return LabelsError(
        f"{classes.path()} holds {description}: {', or '.join(ways)}; or, if {quoted(classes.names)} are the classes: "
        f"{way}"
    )


def _case_folded(name: str) -> str:
    return label_of(name).casefold()


def quoted(names: Sequence[str]) -> str:
    """The first few of ``names``, quoted, and how many more there are."""
    first_names = ", ".join(map(repr, names[:_MOST_NAMES]))
    return f"{first_names} and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else first_names
