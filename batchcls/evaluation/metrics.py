"""Classification metrics: rates of confusion matrices, areas under curves, and their averages over classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score, roc_auc_score

CLASS_METRICS = ("precision", "recall", "f1", "roc_auc", "pr_auc")
"""Names of the metrics that are computed for each class."""
AREAS = ("roc_auc", "pr_auc")
"""Names of the metrics that are areas under curves."""
_QUANTILES = 1024
_SMALLEST_DIVISOR = 1e-12
"""Smallest divisor that does not count as 0; rounding causes smaller ones."""

Float64Array = npt.NDArray[np.float64]
Int64Array = npt.NDArray[np.int64]
ImageCounts = Int64Array | Float64Array
"""Numbers of images, as integers, or as floats in a bootstrap resample."""


@dataclass(frozen=True, slots=True)
class AbsentClasses:
    """The classes of the engine that have no image in the truth."""

    labels: tuple[str, ...]
    """Labels without an image, in the engine's order."""
    macro_f1_of_all: float
    """Macro F1 over all classes of the engine, in which a class without images counts as 0."""


def confusion_matrix(truth: npt.NDArray[np.int32], predicted: npt.NDArray[np.int32], classes: int) -> Int64Array:
    """(C, C) numbers of images, true class by row, predicted class by column.

    Args:
        truth: (N,) true classes, from 0.
        predicted: (N,) predicted classes, from 0.
        classes: The number of classes, C.
    """
    cells = truth.astype(np.int64) * classes + predicted
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def rates(counts: ImageCounts) -> dict[str, Float64Array]:
    """Accuracy, Cohen's kappa, precision, recall and F1 of confusion matrices, by name.

    Args:
        counts: (R, C, C) numbers of images, true class by row.

    Returns:
        (R,) accuracy and kappa; (R, C) precision, recall and f1. NaN where a rate is undefined.
    """
    correct, truth, predicted = np.diagonal(counts, axis1=1, axis2=2), counts.sum(axis=2), counts.sum(axis=1)
    images = truth.sum(axis=1)
    agreement, chance = _ratio(correct.sum(axis=1), images), _ratio((truth * predicted).sum(axis=1), images**2)
    return {
        "accuracy": agreement,
        "kappa": _ratio(agreement - chance, 1 - chance),
        "precision": _ratio(correct, predicted),
        "recall": _ratio(correct, truth),
        "f1": _ratio(2 * correct, truth + predicted),
    }


def score_levels(scores: npt.NDArray[np.float32], positive: npt.NDArray[np.bool_]) -> tuple[Int64Array, int]:
    """Scores as at most 4,097 levels: the quantiles of both sides, and the gaps between quantiles.

    Areas under curves stay exact where one side has 1,024 images or fewer.

    Args:
        scores: (N,) probabilities of one class.
        positive: (N,) whether the image is of that class.

    Returns:
        (N,) histogram cell of each image, ``level * 2 + positive``; and the number of cells.
    """
    sides = [np.sort(side) for side in (scores[positive], scores[~positive]) if len(side)]
    places = [np.linspace(0, len(side) - 1, min(len(side), _QUANTILES)).astype(int) for side in sides]
    edges = np.unique(np.concatenate([side[place] for side, place in zip(sides, places, strict=True)]))
    level = np.searchsorted(edges, scores, side="left") + np.searchsorted(edges, scores, side="right")
    return level * 2 + positive, 2 * (2 * len(edges) + 1)


def areas_of_levels(counts: ImageCounts) -> dict[str, Float64Array]:
    """Areas under the ROC curve and, as average precision, under the precision-recall curve, by name.

    Args:
        counts: (R, levels * 2) histograms of the cells of `score_levels`, lowest score first: for each level the
            number of images of other classes, then the number of images of the class.

    Returns:
        (R,) ``roc_auc`` and ``pr_auc``; NaN without images of the class, or without others.
    """
    negatives, positives = np.moveaxis(counts.reshape(len(counts), -1, 2), 2, 0).astype(np.float64)
    pairs = positives.sum(axis=1) * negatives.sum(axis=1)
    roc = _ratio((positives * (np.cumsum(negatives, axis=1) - negatives / 2)).sum(axis=1), pairs)
    true_positives = np.cumsum(positives[:, ::-1], axis=1)
    precision = _ratio(true_positives, true_positives + np.cumsum(negatives[:, ::-1], axis=1))
    average = _ratio((np.nan_to_num(precision) * positives[:, ::-1]).sum(axis=1), positives.sum(axis=1))
    return {"roc_auc": roc, "pr_auc": np.where(pairs > 0, average, np.nan)}


def areas_of_classes(tables: Sequence[ImageCounts]) -> dict[str, Float64Array]:
    """(R, C) areas under the curves of all classes, by name.

    Args:
        tables: For each of C classes, (R, levels * 2) histograms; see `areas_of_levels`.
    """
    areas = [areas_of_levels(table) for table in tables]
    return {name: np.stack([area[name] for area in areas], axis=1) for name in AREAS}


def exact_areas(
    probabilities: npt.NDArray[np.float32], positives: Sequence[npt.NDArray[np.bool_]]
) -> dict[str, Float64Array]:
    """(1, C) areas under the curves of all classes by scikit-learn, by name; NaN where an area is undefined.

    Args:
        probabilities: (N, C), 0 to 1.
        positives: For each class, (N,) whether the image is of that class.
    """
    areas = np.full((2, 1, len(positives)), np.nan)
    for code, positive in enumerate(positives):
        if positive.any() and not positive.all():
            scores = probabilities[:, code]
            areas[:, 0, code] = roc_auc_score(positive, scores), average_precision_score(positive, scores)
    return dict(zip(AREAS, areas, strict=True))


def with_macro_averages(metrics: Mapping[str, Float64Array], counts: ImageCounts) -> dict[str, Float64Array]:
    """``metrics`` and their averages over the classes that have images, each as (R, columns).

    Args:
        metrics: (R,) or (R, C) by name; at least `CLASS_METRICS`.
        counts: (R, C, C) confusion matrices, true class by row.
    """
    has_images = counts.sum(axis=2) > 0
    averages = {}
    for name in CLASS_METRICS:
        # A class that was never predicted has no precision; in the mean that is 0, as in scikit-learn.
        used = has_images & ~np.isnan(metrics[name]) if name in AREAS else has_images
        averages[f"macro_{name}"] = _ratio(
            np.where(used, np.nan_to_num(metrics[name]), 0).sum(axis=1), used.sum(axis=1)
        )
    everything = {**metrics, **averages, "balanced_accuracy": averages["macro_recall"]}
    return {name: values.reshape(len(counts), -1) for name, values in everything.items()}


def absent_classes(counts: Int64Array, labels: Sequence[str]) -> AbsentClasses:
    """The classes without an image, and scikit-learn's macro F1, which counts such a class as 0.

    That macro F1 is ``f1_score(average="macro", zero_division=0)`` with ``labels`` of all classes.

    Args:
        counts: (C, C) numbers of images, true class by row.
        labels: (C,) labels in the order of ``counts``.
    """
    absent = tuple(label for label, images in zip(labels, counts.sum(axis=1), strict=True) if not images)
    return AbsentClasses(absent, float(np.nan_to_num(rates(counts[None])["f1"]).mean()))


def _ratio(above: npt.ArrayLike, below: npt.ArrayLike) -> Float64Array:
    """``above / below``; NaN where ``below`` is 0 but for rounding."""
    above, below = np.asarray(above, np.float64), np.asarray(below, np.float64)
    return np.asarray(np.divide(above, below, out=np.full(above.shape, np.nan), where=below > _SMALLEST_DIVISOR))
