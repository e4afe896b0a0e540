"""How good answers are beside the truth: rates of counts and areas under curves, with intervals by resampling."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.metrics import average_precision_score, roc_auc_score

RESAMPLES = 1000
_CHUNK = 100
_MOST_BLOCKS = 20_000
_EDGES = 1024
_OF_CLASSES = ("precision", "recall", "f1", "roc_auc", "pr_auc")
_AREAS = ("roc_auc", "pr_auc")
_UNDEFINED = {
    "precision": "never predicted",
    "recall": "no image of it",
    "f1": "no image of it, and never predicted",
    "roc_auc": "needs images of this class and of others",
    "pr_auc": "needs images of this class and of others",
    "kappa": "one class alone, in the truth and in the predictions",
}

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def confusion(truth: npt.NDArray[Any], predicted: npt.NDArray[Any], classes: int) -> Ints:
    """(C, C) how many images of each class, by row, were called what, by column."""
    cells = truth.astype(np.int64) * classes + predicted
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def rates(counts: npt.NDArray[Any]) -> dict[str, Floats]:
    """What confusion matrices tell; NaN where it is undefined.

    Args:
        counts: (R, C, C), truth by row.

    Returns:
        (R, C) precision, recall and f1; (R,) accuracy and kappa.
    """
    right, truth, said = np.diagonal(counts, axis1=1, axis2=2), counts.sum(axis=2), counts.sum(axis=1)
    images = truth.sum(axis=1)
    agreed, chance = _ratio(right.sum(axis=1), images), _ratio((truth * said).sum(axis=1), images**2)
    return {
        "accuracy": agreed,
        "kappa": _ratio(agreed - chance, 1 - chance),
        "precision": _ratio(right, said),
        "recall": _ratio(right, truth),
        "f1": _ratio(2 * right, truth + said),
    }


def areas(counts: npt.NDArray[Any]) -> dict[str, Floats]:
    """The areas under the ROC curve and, as average precision, under the precision-recall curve.

    Args:
        counts: (R, levels * 2), by rising score: images not of the class, images of it.

    Returns:
        (R,) each; NaN without images of the class, or without others.
    """
    others, own = np.moveaxis(counts.reshape(len(counts), -1, 2), 2, 0).astype(np.float64)
    pairs = own.sum(axis=1) * others.sum(axis=1)
    roc = _ratio((own * (np.cumsum(others, axis=1) - others / 2)).sum(axis=1), pairs)
    found = np.cumsum(own[:, ::-1], axis=1)
    precision = _ratio(found, found + np.cumsum(others[:, ::-1], axis=1))
    average = _ratio((np.nan_to_num(precision) * own[:, ::-1]).sum(axis=1), own.sum(axis=1))
    return {"roc_auc": roc, "pr_auc": np.where(pairs > 0, average, np.nan)}


def levels(scores: npt.NDArray[np.float32], own: npt.NDArray[np.bool_]) -> tuple[Ints, int]:
    """Scores as at most 4,097 levels: the quantiles of both sides, and what is between them; of 1,024 images or fewer
    on one side, areas stay exact.

    Returns:
        (N,) level * 2 + whether the image is of the class, and how many such cells there are.
    """
    sides = [np.sort(side) for side in (scores[own], scores[~own]) if len(side)]
    places = [np.linspace(0, len(side) - 1, min(len(side), _EDGES)).astype(int) for side in sides]
    edges = np.unique(np.concatenate([side[place] for side, place in zip(sides, places, strict=True)]))
    level = np.searchsorted(edges, scores, side="left") + np.searchsorted(edges, scores, side="right")
    return level * 2 + own, 2 * (2 * len(edges) + 1)


def blocks(images: int, seed: int) -> Ints:
    """(images,) groups where there are none: each image its own, or all dealt at random to 20,000 of one size.

    Resampling such blocks has the variance of resampling images, and takes less time.
    """
    return np.random.default_rng(seed).permutation(images) % _MOST_BLOCKS


def resampled(cells: Sequence[tuple[Ints, int]], groups: Ints, seed: int) -> Iterator[list[Floats]]:
    """Histograms of 1,000 bootstrap resamples: as many groups as there are, drawn with replacement.

    Args:
        cells: (N,) the cell of each image, and how many cells there are; several such, which share the draws.
        groups: (N,), from 0 without a gap.

    Yields:
        (resamples, cells) for each of ``cells``, some resamples at a time.
    """
    rng, count = np.random.default_rng(seed), int(groups.max()) + 1
    one = np.ones(len(groups))
    tables = [sparse.coo_array((one, (cell, groups)), shape=(size, count)).tocsr() for cell, size in cells]
    chunk = max(1, min(_CHUNK, _CHUNK * _MOST_BLOCKS // count))
    for start in range(0, RESAMPLES, chunk):
        draws = (rng.integers(count, size=count) for _ in range(min(chunk, RESAMPLES - start)))
        weights = np.stack([np.bincount(draw, minlength=count) for draw in draws], axis=1).astype(np.float64)
        yield [np.ascontiguousarray((table @ weights).T) for table in tables]


def estimates(
    truth: npt.NDArray[np.int32],
    predicted: npt.NDArray[np.int32],
    probabilities: npt.NDArray[np.float32],
    groups: Ints,
    seed: int,
) -> tuple[dict[str, dict[str, Any]], list[dict[str, dict[str, Any]]]]:
    """Every rate and area with its 95 % percentile interval, for all classes together and for each.

    Args:
        truth: (N,), from 0; N is 1 or more.
        predicted: (N,), from 0.
        probabilities: (N, C), 0 to 1.
        groups: (N,), from 0 without a gap; images of one are resampled together.

    Returns:
        Estimates by name: ``value``, ``low``, ``high`` and, where one of them is None, ``why``.
    """
    classes = probabilities.shape[1]
    sides = [truth == code for code in range(classes)]
    by_level = [levels(probabilities[:, code], own) for code, own in enumerate(sides)]
    counts = confusion(truth, predicted, classes)[None]
    exact = _with_means(rates(counts) | _exact_areas(probabilities, sides), counts)
    samples: dict[str, Floats] = {}
    if groups.max() > 0:
        binned = _areas([np.bincount(cell, minlength=size)[None] for cell, size in by_level])
        # Levels tie what is not quite equal; what that changes is the same in every resample, and is undone.
        offsets = {name: exact[name] - binned[name] for name in _AREAS}
        cells = [(truth.astype(np.int64) * classes + predicted, classes**2), *by_level]
        chunks = [_sample(tables, offsets) for tables in resampled(cells, groups, seed)]
        samples = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in exact}
    found = {
        name: [
            _estimate(name, value, samples[name][:, column] if samples else np.empty(0))
            for column, value in enumerate(values[0])
        ]
        for name, values in exact.items()
    }
    overall = {name: columns[0] for name, columns in found.items() if name not in _OF_CLASSES}
    return overall, [{name: found[name][code] for name in _OF_CLASSES} for code in range(classes)]


def without_images(counts: Ints, labels: Sequence[str]) -> dict[str, Any]:
    """Classes that have no image, and the macro F1 that counts them too, as 0.

    That is scikit-learn's ``f1_score(average="macro", zero_division=0)`` with ``labels`` of all classes; `estimates`
    leaves them out.

    Args:
        counts: (C, C), truth by row.
    """
    absent = [label for label, images in zip(labels, counts.sum(axis=1), strict=True) if not images]
    return {"labels": absent, "macro_f1_of_all": float(np.nan_to_num(rates(counts[None])["f1"]).mean())}


def _exact_areas(probabilities: npt.NDArray[np.float32], sides: Sequence[npt.NDArray[np.bool_]]) -> dict[str, Floats]:
    found = np.full((2, 1, len(sides)), np.nan)
    for code, own in enumerate(sides):
        if own.any() and not own.all():
            scores = probabilities[:, code]
            found[:, 0, code] = roc_auc_score(own, scores), average_precision_score(own, scores)
    return dict(zip(_AREAS, found, strict=True))


def _areas(tables: Sequence[npt.NDArray[Any]]) -> dict[str, Floats]:
    found = [areas(table) for table in tables]
    return {name: np.stack([area[name] for area in found], axis=1) for name in _AREAS}


def _sample(tables: Sequence[Floats], offsets: Mapping[str, Floats]) -> dict[str, Floats]:
    classes = len(tables) - 1
    counts = tables[0].reshape(-1, classes, classes)
    exact = {name: np.clip(values + offsets[name], 0, 1) for name, values in _areas(tables[1:]).items()}
    return _with_means(rates(counts) | exact, counts)


def _with_means(found: dict[str, Floats], counts: npt.NDArray[Any]) -> dict[str, Floats]:
    """``found``, all as (R, columns), and its means over the classes that have images."""
    there = counts.sum(axis=2) > 0
    means = {}
    for name in _OF_CLASSES:
        # A class that was never predicted has no precision; in the mean that is 0, as in scikit-learn.
        used = there & ~np.isnan(found[name]) if name in _AREAS else there
        means[f"macro_{name}"] = _ratio(np.where(used, np.nan_to_num(found[name]), 0).sum(axis=1), used.sum(axis=1))
    everything = found | means | {"balanced_accuracy": means["macro_recall"]}
    return {name: values.reshape(len(counts), -1) for name, values in everything.items()}


def _estimate(name: str, value: float, samples: Floats) -> dict[str, Any]:
    if np.isnan(value):
        why = _UNDEFINED.get(name, "needs a class with images of it and of others")
        return {"value": None, "low": None, "high": None, "why": why}
    samples = samples[~np.isnan(samples)]
    if not len(samples):
        return {"value": float(value), "low": None, "high": None, "why": "an interval needs two images or groups"}
    low, high = np.percentile(samples, [2.5, 97.5])
    return {"value": float(value), "low": float(low), "high": float(high), "why": None}


def _ratio(above: npt.NDArray[Any], below: npt.NDArray[Any]) -> Floats:
    """NaN where ``below`` is 0, or no further from it than by rounding."""
    above, below = np.asarray(above, np.float64), np.asarray(below, np.float64)
    return np.asarray(np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 1e-12))
