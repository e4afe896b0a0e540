"""Assign images to training, validation and test so that no two splits share an image or a group."""

import warnings
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedGroupKFold

from batchcls.errors import LabelsError
from batchcls.storage.natural_order import natural_key
from batchcls.training.options import SplitFractions, SplitOptions

SPLITS = ("train", "val", "test")
_MOST_NAMED = 3
"""Largest number of groups that an error names."""
_ROUNDING = 1e-9
_FOLDS = 20
"""Number of folds from which random splits are assembled."""

Strings = npt.NDArray[np.str_]
"""One-dimensional array of strings."""


def assign_splits(paths: Strings, labels: Strings, groups: Strings, options: SplitOptions) -> Strings:
    """(N,) the split of each image: train, val or test.

    Images of one group stay together, and each class is split by about the same fractions. ``blocks`` takes the first
    images of each class for validation and the last for test; it is meant for images numbered in the order in which
    they were taken, where neighbors look alike. ``random`` joins folds of scikit-learn's StratifiedGroupKFold.

    Args:
        paths: (N,) the images; ``blocks`` orders each class by their natural order (2 before 10).
        labels: (N,) the class of each image.
        groups: (N,) the group of each image, such as its patient; an image without a group has its own path here.
        options: Strategy, fractions and seed; other options are ignored.

    Raises:
        LabelsError: If a class has too few images, or groups, for each split to have one.
    """
    fractions = options.fractions
    if options.strategy == "blocks":
        splits = _blocks(paths, labels, groups, fractions)
    else:
        _check_enough(labels, groups, fractions)
        splits = _random(labels, groups, fractions, options.seed)
    check_splits(labels, groups, splits, [split for split in SPLITS if split != "test" or fractions.test])
    return splits


def check_splits(labels: Strings, groups: Strings, splits: Strings, required: Sequence[str]) -> None:
    """Refuse splits that share a group, or lack a class.

    Args:
        labels: (N,) the class of each image.
        groups: (N,) the group of each image.
        splits: (N,) the split of each image.
        required: Splits that must have images of every class.

    Raises:
        LabelsError: If splits share a group, or a required split lacks a class; the message names them.
    """
    splits_of_group: dict[str, set[str]] = defaultdict(set)
    for group, split in zip(groups.tolist(), splits.tolist(), strict=True):
        splits_of_group[group].add(split)
    if torn := [group for group, split_names in splits_of_group.items() if len(split_names) > 1]:
        names = ", ".join(map(repr, torn[:_MOST_NAMED]))
        raise LabelsError(f"{len(torn):,} groups stand in more than one part of the split: {names}")
    for label in np.unique(labels):
        counts = {split: int(((labels == label) & (splits == split)).sum()) for split in required}
        if not all(counts.values()):
            held = ", ".join(f"{split} {count:,}" for split, count in counts.items())
            raise LabelsError(
                f"class {str(label)!r} is not in every part of the split ({held}); it has "
                f"{int((labels == label).sum()):,} images in {len(np.unique(groups[labels == label])):,} groups: "
                "add images, change --val, --test or --group-by, or leave the class out"
            )


def _blocks(paths: Strings, labels: Strings, groups: Strings, fractions: SplitFractions) -> Strings:
    order = sorted(range(len(paths)), key=lambda row: (labels[row], natural_key(str(paths[row]))))
    members: dict[tuple[str, str], list[int]] = defaultdict(list)
    label_of: dict[str, str] = {}
    for row in order:
        group = str(groups[row])
        label_of.setdefault(group, str(labels[row]))  # a group with several classes counts for the first of them
        members[label_of[group], group].append(row)
    totals: dict[str, int] = defaultdict(int)
    for (label, _), rows in members.items():
        totals[label] += len(rows)
    splits = np.full(len(paths), "train", "<U5")
    before: dict[str, int] = defaultdict(int)
    for (label, _), rows in members.items():
        place = before[label] / totals[label] + _ROUNDING
        if place >= 1 - fractions.test:
            splits[rows] = "test"
        elif place < fractions.val:
            splits[rows] = "val"
        before[label] += len(rows)
    return splits


def _random(labels: Strings, groups: Strings, fractions: SplitFractions, seed: int) -> Strings:
    folds = _folds(labels, groups, seed)
    count = int(folds.max()) + 1
    test = max(1, round(count * fractions.test)) if fractions.test else 0
    val = max(1, round(count * fractions.val))
    splits = np.array(["test"] * test + ["val"] * val + ["train"] * (count - test - val))[folds]
    for label in np.unique(labels):  # a rare class is not in every fold
        for split in SPLITS[: 3 if fractions.test else 2]:
            own = labels == label
            if not (own & (splits == split)).any():
                largest = max(SPLITS, key=lambda other: len(np.unique(groups[own & (splits == other)])))
                splits[groups == groups[own & (splits == largest)][0]] = split
    return splits


def _folds(labels: Strings, groups: Strings, seed: int) -> npt.NDArray[np.intp]:
    """(N,) the number of each image's fold; there are 20 folds, or fewer if classes or groups are small."""
    codes = np.unique(groups, return_inverse=True)[1]
    most = int(np.unique(labels, return_counts=True)[1].max())
    splitter = StratifiedGroupKFold(min(_FOLDS, most, int(codes.max()) + 1), shuffle=True, random_state=seed)
    folds = np.zeros(len(labels), np.intp)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a class has fewer images than there are folds
        for number, (_, rows) in enumerate(splitter.split(labels, labels, codes)):
            folds[rows] = number
    return np.unique(folds, return_inverse=True)[1]  # with few groups some folds may be empty


def _check_enough(labels: Strings, groups: Strings, fractions: SplitFractions) -> None:
    required = 3 if fractions.test else 2
    for label in np.unique(labels):
        held = len(np.unique(groups[labels == label]))
        if held < required:
            names = "training, validation and test" if fractions.test else "training and validation"
            raise LabelsError(
                f"class {str(label)!r} has {held} image{'s' * (held > 1)} or group{'s' * (held > 1)} that can be used; "
                f"{names} need one each: add images, or leave the class out"
            )
