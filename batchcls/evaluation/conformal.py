"""Conformal sets of labels: thresholds fitted on one half of the images, and what the other half says of them."""

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from crepes import ConformalClassifier
from scipy.stats import beta

from batchcls.engine.conformal import ConformalThresholds, nonconformity
from batchcls.evaluation.labeled_predictions import LabeledPredictions

LEVELS = (0.9, 0.95)
"""Promised shares of images whose set holds the true label."""
_DIGITS = 12
"""Decimals that a level's complement is rounded to, so that 1 - 0.9 is 0.1."""

BoolArray = npt.NDArray[np.bool_]
Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SetMeasures:
    """What the sets of some images of the second half are like; None where there is no image."""

    images: int
    """Number of images of the second half."""
    covered: int
    """Number of images whose set holds the true label."""
    coverage: float | None
    """Share of images whose set holds the true label."""
    low: float | None
    """Lower bound of the coverage's 95 % interval (Clopper-Pearson), for independent images."""
    high: float | None
    """Upper bound of the coverage's 95 % interval (Clopper-Pearson), for independent images."""
    mean_size: float | None
    """Mean number of labels in a set."""
    empty: float | None
    """Share of images whose set is empty."""
    single: float | None
    """Share of images whose set is one label."""


@dataclass(frozen=True, slots=True)
class ConformalSets:
    """Conformal thresholds of each class, and the sets that they make of other images."""

    thresholds: ConformalThresholds
    calibration_images: tuple[int, ...]
    """(C,) number of images of each class that the thresholds were fitted on."""
    overall: tuple[SetMeasures, ...]
    """Measures over all images of the second half, by level."""
    classes: tuple[tuple[SetMeasures, ...], ...]
    """Measures of each class, by level."""


def measure_conformal_sets(predictions: LabeledPredictions, labels: tuple[str, ...], seed: int) -> ConformalSets | None:
    """Class-conditional conformal sets at 90 and 95 %, fitted on one half of the images and measured on the other.

    Args:
        predictions: Images with true and predicted classes; images of one group stay in one half.
        labels: (C,) labels in the order of the probabilities.
        seed: Seed of the two halves.

    Returns:
        None for an engine of one class, whose sets would say nothing.
    """
    if len(labels) < 2:
        return None
    first = calibration_half(predictions, seed)
    truth = predictions.truth[first]
    scores = nonconformity(predictions.probabilities[first, truth])
    of_classes = [class_thresholds(scores[truth == code]) for code in range(len(labels))]
    levels = {
        str(level): dict(zip(labels, thresholds, strict=True))
        for level, thresholds in zip(LEVELS, zip(*of_classes, strict=True), strict=True)
    }
    fitted = ConformalThresholds(levels, int(first.sum()))
    probabilities, truth = predictions.probabilities[~first], predictions.truth[~first]
    measures = [_measures(fitted.label_sets(probabilities, level), truth) for level in LEVELS]
    return ConformalSets(
        thresholds=fitted,
        calibration_images=tuple(np.bincount(predictions.truth[first], minlength=len(labels)).tolist()),
        overall=tuple(of_level[-1] for of_level in measures),
        classes=tuple(of_level[:-1] for of_level in measures),
    )


def calibration_half(predictions: LabeledPredictions, seed: int) -> BoolArray:
    """(N,) whether an image is in the half that thresholds are fitted on: every other of a class, in random order.

    Where images are in groups, it is every other group of a class; a group of several classes counts as of one of them.
    """
    rng, images = np.random.default_rng(seed), len(predictions.truth)
    groups = predictions.groups if predictions.is_grouped else np.arange(images)
    order = rng.permutation(images)
    _, places = np.unique(groups[order], return_index=True)
    classes = predictions.truth[order[places]]  # of each group's first image, in random order
    shuffled = rng.permutation(len(classes))
    by_class = shuffled[np.argsort(classes[shuffled], kind="stable")]
    starts = np.searchsorted(classes[by_class], classes[by_class])
    is_first = np.empty(len(classes), bool)
    is_first[by_class] = (np.arange(len(classes)) - starts) % 2 == 0
    return np.asarray(is_first[groups])


def class_thresholds(scores: Float64Array) -> tuple[float | None, ...]:
    """The threshold on the nonconformity of one class, for each of `LEVELS`; None: its label is in every set.

    It is the largest score of which the conformal p-value is above 1 - level. With fewer than ceil(1 / (1 - level)) - 1
    images, no score is large enough to be left out.

    Args:
        scores: (n,) nonconformity of the class's calibration images, 0 to 1.
    """
    classifier, candidates = ConformalClassifier().fit(scores), np.unique(scores)

    def p_value(score: float) -> float:
        return float(classifier.predict_p(np.array([score]), smoothing=False)[0])

    def threshold(level: float) -> float | None:
        error_rate = round(1 - level, _DIGITS)
        if p_value(np.inf) > error_rate:
            return None
        first_left_out = bisect_left(candidates, True, key=lambda score: p_value(score) <= error_rate)
        return float(candidates[first_left_out - 1])  # the smallest score's p-value is 1

    return tuple(map(threshold, LEVELS))


def _measures(sets: BoolArray, truth: npt.NDArray[np.int32]) -> tuple[SetMeasures, ...]:
    """Measures of each of the C classes, then of all images.

    Args:
        sets: (N, C) whether each label is in the set of an image.
        truth: (N,) true classes, from 0.
    """
    sizes, classes = sets.sum(axis=1), sets.shape[1]
    of_images = (np.ones(len(truth)), sets[np.arange(len(truth)), truth], sizes, sizes == 0, sizes == 1)
    sums = np.stack([np.bincount(truth, figures, minlength=classes) for figures in of_images], axis=1)
    sums = np.concatenate([sums, sums.sum(axis=0, keepdims=True)])
    images, covered = sums[:, 0], sums[:, 1]
    low = np.where(covered == 0, 0, beta.ppf(0.025, covered, images - covered + 1))
    high = np.where(covered == images, 1, beta.ppf(0.975, covered + 1, images - covered))
    coverage, *others = sums[:, 1:].T / np.maximum(images, 1)
    rows = np.stack([coverage, low, high, *others], axis=1).tolist()
    return tuple(
        SetMeasures(int(count), int(of_count), *(row if count else [None] * len(row)))
        for count, of_count, row in zip(images, covered, rows, strict=True)
    )
