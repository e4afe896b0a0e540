"""The accuracy of an engine by the class folders that images are in, and the order of labels that would be better."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from scipy.stats import binomtest

from batchcls.engine.verification import FolderAccuracy
from batchcls.errors import LabelsError
from batchcls.images.labels.class_folders import folder_labels
from batchcls.networks.label_values import comparable_labels

_LEAST_GAIN = 0.1
"""Smallest gain of accuracy for which another order of the labels is proposed."""


def folder_accuracy(paths: Sequence[str], predicted: Sequence[int], labels: Sequence[str]) -> FolderAccuracy | None:
    """The accuracy of predictions by the names of class folders.

    Args:
        paths: Path of each image below the folder of all images, with ``/`` as separator.
        predicted: Position of the predicted label of each image; -1 where there is none.
        labels: The engine's labels.

    Returns:
        The accuracy; None if no image is in a class folder, or if a class folder is not called like a label.
    """
    own = comparable_labels(labels, labels)
    parts = sorted({part for path in paths for part in path.split("/")[:-1]})
    known = [part for part, name in zip(parts, comparable_labels(parts, labels), strict=True) if name in own]
    try:
        folders = folder_labels("", list(paths), known=known)
    except LabelsError:
        return None
    names = comparable_labels(folders.labels, labels)
    if not names or set(names) - set(own):
        return None
    prediction_of = dict(zip(paths, predicted, strict=True))
    true = [own.index(name) for name in names]
    confusion = np.zeros((len(labels), len(labels)), np.int64)
    for place, path in zip(true, folders.paths, strict=True):
        if prediction_of[path] >= 0:
            confusion[place, prediction_of[path]] += 1
    return _accuracy_of(confusion, len(true), tuple(labels))


def _accuracy_of(confusion: npt.NDArray[np.int64], images: int, labels: tuple[str, ...]) -> FolderAccuracy:
    right, order = int(np.trace(confusion)), _best_order(confusion)
    better = int(confusion[order, np.arange(len(labels))].sum())
    (low, high), (better_low, _) = _interval(right, images), _interval(better, images)
    if better - right < _LEAST_GAIN * images or better_low <= high:
        return FolderAccuracy(images, right / images, (low, high), (), right / images)
    reordered = tuple(labels[place] for place in order)
    return FolderAccuracy(images, right / images, (low, high), reordered, better / images)


def _best_order(confusion: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
    """(classes,) the label of each output by which most images would be right; of equal orders, the given one.

    Args:
        confusion: (classes, classes) number of images, by label and output.
    """
    classes = len(confusion)
    place, output = linear_sum_assignment(confusion * (classes + 1) + np.eye(classes, dtype=np.int64), maximize=True)
    order = np.empty(classes, np.intp)
    order[output] = place
    return order


def _interval(right: int, images: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of images."""
    interval = binomtest(right, images).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)
