"""Images are parted into training, validation and test so that none has seen another's."""

import re
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedGroupKFold

from batchcls.errors import LabelsError

SplitStrategy = Literal["random", "blocks"]
SPLITS = ("train", "val", "test")
_SHOWN = 3
_ROUNDING = 1e-9
_FOLDS = 20

Words = npt.NDArray[np.str_]


@dataclass(frozen=True, slots=True)
class SplitFractions:
    """How much of the images is kept back, 0 to 1."""

    val: float = 0.1
    test: float = 0.2
    """0: all that is not validation trains."""

    def __post_init__(self) -> None:
        if not (0 < self.val < 1 and 0 <= self.test < 1 and self.val + self.test <= 0.9):
            raise LabelsError(
                f"--val {self.val} and --test {self.test} leave too little; together 0.9 at most, --val > 0"
            )


def assign_splits(
    paths: Words, labels: Words, groups: Words, way: SplitStrategy, shares: SplitFractions, seed: int
) -> Words:
    """A part for each image: train, val or test; images of one group stay together, classes keep their shares.

    Args:
        paths: (N,) In blocks, their natural order (2 before 10) is the order of each class.
        groups: (N,) Images that stay together; each its own where nothing is known.
        way: ``blocks``: of each class the first images validate, the next train, the last test; for images that are
            numbered in the order of their making, where neighbours look alike. ``random``: scikit-learn's
            StratifiedGroupKFold, whose parts come close to the shares.

    Raises:
        LabelsError: If a class has too few images, or groups, for each part to have one.
    """
    if way == "blocks":
        parts = _blocks(paths, labels, groups, shares)
    else:
        _check_enough(labels, groups, shares)
        parts = _random(labels, groups, shares, seed)
    check_parts(labels, groups, parts, [part for part in SPLITS if part != "test" or shares.test])
    return parts


def check_parts(labels: Words, groups: Words, parts: Words, wanted: Sequence[str]) -> None:
    """Refuse parts that lack a class, or share a group.

    Raises:
        LabelsError: Naming them.
    """
    seen: dict[str, set[str]] = defaultdict(set)
    for group, part in zip(groups.tolist(), parts.tolist(), strict=True):
        seen[group].add(part)
    if torn := [group for group, found in seen.items() if len(found) > 1]:
        raise LabelsError(f"{len(torn):,} groups stand in more than one part of the split: {_few(torn)}")
    for label in np.unique(labels):
        counts = {part: int(((labels == label) & (parts == part)).sum()) for part in wanted}
        if not all(counts.values()):
            held = ", ".join(f"{part} {count:,}" for part, count in counts.items())
            raise LabelsError(
                f"class {str(label)!r} is not in every part of the split ({held}); it has "
                f"{int((labels == label).sum()):,} images in {len(np.unique(groups[labels == label])):,} groups: "
                "add images, change --val, --test or --group-by, or leave the class out"
            )


def natural(path: str) -> list[tuple[int, int, str]]:
    """A key to sort by: numbers by their value, as people count files."""
    pieces = re.split(r"([0-9]+)", path)
    return [(1, int(piece), "") if piece.isdecimal() else (0, 0, piece) for piece in pieces if piece]


def duplicates(labels: Mapping[str, str], fingerprints: Mapping[str, bytes]) -> dict[str, str]:
    """Why a path should be left out because another shows the same, for each that should.

    Of images alike with one label the first stays; where their labels differ nobody knows which is true, so none does.

    Args:
        labels: By path, in the order of preference.
        fingerprints: By path.
    """
    alike: dict[bytes, list[str]] = defaultdict(list)
    for path in labels:
        alike[fingerprints[path]].append(path)
    found: dict[str, str] = {}
    for paths in alike.values():
        if len({labels[path] for path in paths}) > 1:
            found |= {path: f"same image as {_other(paths, path)}, with another label" for path in paths}
        else:
            found |= dict.fromkeys(paths[1:], f"same image as {paths[0]}")
    return found


def _other(paths: Sequence[str], path: str) -> str:
    return next(other for other in paths if other != path)


def _blocks(paths: Words, labels: Words, groups: Words, shares: SplitFractions) -> Words:
    order = sorted(range(len(paths)), key=lambda row: (labels[row], natural(str(paths[row]))))
    members: dict[tuple[str, str], list[int]] = defaultdict(list)
    label_of: dict[str, str] = {}
    for row in order:
        group = str(groups[row])
        label_of.setdefault(group, str(labels[row]))  # of several classes: it goes with its first
        members[label_of[group], group].append(row)
    totals: dict[str, int] = defaultdict(int)
    for (label, _), rows in members.items():
        totals[label] += len(rows)
    parts = np.full(len(paths), "train", "<U5")
    before: dict[str, int] = defaultdict(int)
    for (label, _), rows in members.items():
        place = before[label] / totals[label] + _ROUNDING
        if place >= 1 - shares.test:
            parts[rows] = "test"
        elif place < shares.val:
            parts[rows] = "val"
        before[label] += len(rows)
    return parts


def _random(labels: Words, groups: Words, shares: SplitFractions, seed: int) -> Words:
    folds = _folds(labels, groups, seed)
    count = int(folds.max()) + 1
    test = max(1, round(count * shares.test)) if shares.test else 0
    val = max(1, round(count * shares.val))
    parts = np.array(["test"] * test + ["val"] * val + ["train"] * (count - test - val))[folds]
    for label in np.unique(labels):  # a rare class is not in every fold
        for part in SPLITS[: 3 if shares.test else 2]:
            own = labels == label
            if not (own & (parts == part)).any():
                most = max(SPLITS, key=lambda other: len(np.unique(groups[own & (parts == other)])))
                parts[groups == groups[own & (parts == most)][0]] = part
    return parts


def _folds(labels: Words, groups: Words, seed: int) -> npt.NDArray[np.intp]:
    """(N,) a twentieth of the images each, or as many as there can be, by scikit-learn's StratifiedGroupKFold."""
    codes = np.unique(groups, return_inverse=True)[1]
    most = int(np.unique(labels, return_counts=True)[1].max())
    splitter = StratifiedGroupKFold(min(_FOLDS, most, int(codes.max()) + 1), shuffle=True, random_state=seed)
    folds = np.zeros(len(labels), np.intp)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a class has fewer images than there are folds
        for number, (_, rows) in enumerate(splitter.split(labels, labels, codes)):
            folds[rows] = number
    return np.unique(folds, return_inverse=True)[1]  # of few groups some folds may be empty


def _check_enough(labels: Words, groups: Words, shares: SplitFractions) -> None:
    needed = 3 if shares.test else 2
    for label in np.unique(labels):
        held = len(np.unique(groups[labels == label]))
        if held < needed:
            parts = "training, validation and test" if shares.test else "training and validation"
            raise LabelsError(
                f"class {str(label)!r} has {held} image{'s' * (held > 1)} or group{'s' * (held > 1)} that can be used; "
                f"{parts} need one each: add images, or leave the class out"
            )


def _few(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:_SHOWN]))
