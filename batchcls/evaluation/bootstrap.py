"""Metrics with bootstrap confidence intervals, resampled by image or by group."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from batchcls.evaluation.labeled_predictions import LabeledPredictions
from batchcls.evaluation.metrics import (
    AREAS,
    CLASS_METRICS,
    Float64Array,
    Int64Array,
    areas_of_classes,
    confusion_matrix,
    exact_areas,
    rates,
    score_levels,
    with_macro_averages,
)
from batchcls.evaluation.proportions import interval_without_spread, proportions

RESAMPLES = 1000
"""Number of bootstrap resamples of every interval."""
_RESAMPLES_AT_A_TIME = 100
_MAX_BLOCKS = 20_000
_PERCENTILES = (2.5, 97.5)
_WHY_UNDEFINED = {
    "precision": "never predicted",
    "recall": "no image of it",
    "f1": "no image of it, and never predicted",
    "roc_auc": "needs images of this class and of others",
    "pr_auc": "needs images of this class and of others",
    "kappa": "one class alone, in the truth and in the predictions",
}


@dataclass(frozen=True, slots=True)
class Estimate:
    """A metric with its 95 % interval: percentiles of bootstrap resamples, or Wilson's for a proportion of 0 or 1."""

    value: float | None
    """The metric of all images; None where the metric is undefined."""
    low: float | None
    """Lower bound of the interval; None where there is no interval."""
    high: float | None
    """Upper bound of the interval; None where there is no interval."""
    why: str | None
    """Reason for a missing value or a missing interval; None where both are there."""


@dataclass(frozen=True, slots=True)
class OverallMetrics:
    """Metrics of all classes together; a macro average is over the classes that have images."""

    accuracy: Estimate
    kappa: Estimate
    """Cohen's kappa, -1 to 1."""
    macro_precision: Estimate
    macro_recall: Estimate
    macro_f1: Estimate
    macro_roc_auc: Estimate
    """Mean area under the ROC curve, each class against the rest."""
    macro_pr_auc: Estimate
    """Mean average precision, each class against the rest."""
    balanced_accuracy: Estimate


@dataclass(frozen=True, slots=True)
class ClassMetrics:
    """Metrics of one class against the rest."""

    precision: Estimate
    recall: Estimate
    f1: Estimate
    roc_auc: Estimate
    """Area under the ROC curve."""
    pr_auc: Estimate
    """Average precision: the area under the precision-recall curve."""


def image_blocks(images: int, seed: int) -> Int64Array:
    """(images,) blocks to resample where images have no groups: one per image, or 20,000 random ones of equal size.

    Metrics vary as much over resampled blocks as over resampled images, in less time.
    """
    return np.random.default_rng(seed).permutation(images) % _MAX_BLOCKS


def resampled_histograms(
    cells: Sequence[tuple[Int64Array, int]], groups: Int64Array, seed: int
) -> Iterator[list[Float64Array]]:
    """Histograms of 1,000 bootstrap resamples, each of as many groups as there are, drawn with replacement.

    Args:
        cells: Pairs of (N,) the histogram cell of each image and the number of cells; all pairs share the draws.
        groups: (N,) group of each image, from 0 without a gap.
        seed: Seed of the draws.

    Yields:
        For at most 100 resamples at a time, a table (resamples, cells) of numbers of images for each pair of ``cells``.
    """
    rng, count = np.random.default_rng(seed), int(groups.max()) + 1
    ones = np.ones(len(groups))
    tables = [sparse.coo_array((ones, (cell, groups)), shape=(size, count)).tocsr() for cell, size in cells]
    chunk = max(1, min(_RESAMPLES_AT_A_TIME, _RESAMPLES_AT_A_TIME * _MAX_BLOCKS // count))
    for start in range(0, RESAMPLES, chunk):
        draws = (rng.integers(count, size=count) for _ in range(min(chunk, RESAMPLES - start)))
        weights = np.stack([np.bincount(draw, minlength=count) for draw in draws], axis=1).astype(np.float64)
        yield [np.ascontiguousarray((table @ weights).T) for table in tables]


def estimate_metrics(predictions: LabeledPredictions, seed: int) -> tuple[OverallMetrics, list[ClassMetrics]]:
    """Every metric with its 95 % interval, for all classes together and for each of the C classes.

    Where all images are classified correctly, or all wrongly, each resample says the same: the interval of a proportion
    is then Wilson's, and other metrics have none.

    Args:
        predictions: Images with true and predicted classes.
        seed: Seed of the bootstrap.
    """
    classes = predictions.classes
    positives = [predictions.truth == code for code in range(classes)]
    levels = [score_levels(predictions.probabilities[:, code], positive) for code, positive in enumerate(positives)]
    counts = confusion_matrix(predictions.truth, predictions.predicted, classes)[None]
    values = with_macro_averages(rates(counts) | exact_areas(predictions.probabilities, positives), counts)
    samples = _samples(predictions, values, levels, seed) if predictions.groups.max() > 0 else {}
    estimates = {
        name: [
            _estimate(name, value, samples[name][:, column] if samples else np.empty(0))
            for column, value in enumerate(row[0])
        ]
        for name, row in values.items()
    }
    if samples:
        _widen_proportions(estimates, predictions)
    overall = OverallMetrics(**{name: row[0] for name, row in estimates.items() if name not in CLASS_METRICS})
    return overall, [ClassMetrics(**{name: estimates[name][code] for name in CLASS_METRICS}) for code in range(classes)]


def _widen_proportions(estimates: Mapping[str, list[Estimate]], predictions: LabeledPredictions) -> None:
    """Give every proportion of 0 or 1 an interval that does not claim certainty."""
    for name, masks in proportions(predictions).items():
        for column, mask in enumerate(masks):
            if interval := interval_without_spread(predictions, mask):
                estimates[name][column] = replace(estimates[name][column], low=interval[0], high=interval[1], why=None)


def _samples(
    predictions: LabeledPredictions,
    values: Mapping[str, Float64Array],
    levels: Sequence[tuple[Int64Array, int]],
    seed: int,
) -> dict[str, Float64Array]:
    """(resamples, columns) of every metric, by name."""
    binned = areas_of_classes([np.bincount(cell, minlength=size)[None] for cell, size in levels])
    # Levels make almost equal scores equal; the offset that this causes is taken to be the same in every resample.
    offsets = {name: values[name] - binned[name] for name in AREAS}
    classes = predictions.classes
    pairs = predictions.truth.astype(np.int64) * classes + predictions.predicted
    tables = resampled_histograms([(pairs, classes**2), *levels], predictions.groups, seed)
    chunks = [_metrics_of_resamples(chunk, offsets) for chunk in tables]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in values}


def _metrics_of_resamples(
    tables: Sequence[Float64Array], offsets: Mapping[str, Float64Array]
) -> dict[str, Float64Array]:
    """(resamples, columns) of every metric, by name, for some of the resamples.

    Args:
        tables: (resamples, C * C) confusion matrices, then for each class (resamples, cells) histograms of its scores.
        offsets: Corrections of the areas under curves, by name.
    """
    classes = len(tables) - 1
    counts = tables[0].reshape(-1, classes, classes)
    areas = {name: np.clip(values + offsets[name], 0, 1) for name, values in areas_of_classes(tables[1:]).items()}
    return with_macro_averages(rates(counts) | areas, counts)


def _estimate(name: str, value: float, samples: Float64Array) -> Estimate:
    if np.isnan(value):
        why = _WHY_UNDEFINED.get(name, "needs a class with images of it and of others")
        return Estimate(None, None, None, why)
    samples = samples[~np.isnan(samples)]
    if not len(samples):
        return Estimate(float(value), None, None, "an interval needs two images or groups")
    low, high = np.percentile(samples, _PERCENTILES)
    if low == high:
        return Estimate(float(value), None, None, "no interval: all resamples agree")
    return Estimate(float(value), float(low), float(high), None)
