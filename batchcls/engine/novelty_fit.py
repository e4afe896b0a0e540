"""Fit the statistics of novelty to images of the kind that a network was trained for."""

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from batchcls.engine.mixed_colors import two_kinds
from batchcls.engine.novelty import (
    ENOUGH_CALIBRATION_IMAGES,
    LARGEST_BYTES,
    MOST_CALIBRATION_IMAGES,
    FeatureGroup,
    GroupStatistics,
    Matrix,
    Novelty,
    combined,
    group_distances,
    statistics_bytes,
    tells_novel,
)
from batchcls.errors import SlidesError
from batchcls.networks.appearance import COLOR
from batchcls.storage.natural_order import natural_key

LARGEST_RANK = 64
"""Largest number of axes of a group."""
FEWEST_IMAGES = 40
"""Number of images below which nothing is fitted."""
_MOST_FITTED = 4_000
"""Number of images, evenly spaced, that represent a larger folder."""
_SHRINKAGE = 0.05
"""Share of the mean variance in each axis's variance."""
_ROUNDING = 2.0**-8
"""Precision of bfloat16: features are rounded to it on some machines, and not on others."""
_LEAST_VARIANCE = 1e-10
"""Variance, by the largest one, below which a direction is none that the images span."""
_BLOCKS = 8
"""Number of contiguous blocks of each folder; every second one is held back."""

Mask = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class ReferenceImages:
    """An engine's answers to the images that novelty is measured against."""

    names: Sequence[str]
    """N paths, below the folder of reference images."""
    features: Matrix
    """(N, F) float32."""
    predicted: npt.NDArray[np.integer]
    """(N,) numbers of the most probable classes."""
    held_back: Mask | None = None
    """(N,) images to calibrate on, for which the network was not trained; None: blocks of the natural order."""


def fit_novelty(images: ReferenceImages, groups: Sequence[FeatureGroup], classes: int) -> tuple[Novelty, list[str]]:
    """The statistics of a folder of images, and notes for the user, one line each.

    Args:
        images: The folder's images, in any order.
        groups: Groups of features, color first.
        classes: Number of the engine's classes.

    Raises:
        SlidesError: If fewer than 40 images have features that are finite, or all features are constant.
    """
    usable: Mask = np.logical_and.reduce(np.isfinite(images.features), axis=1)
    count, left_out = int(usable.sum()), int((~usable).sum())
    if count < FEWEST_IMAGES:
        odd = f", and {left_out:,} with features that are not finite" if left_out else ""
        raise SlidesError(
            f"novelty needs {FEWEST_IMAGES} images or more of the kind that the network was trained for; "
            f"there are {count:,}{odd}; run it on a folder with more of them"
        )
    own = images.held_back
    held_back: Mask = held_back_blocks(images.names, usable) if own is None else np.logical_and(own, usable)
    fitted = _thinned(np.flatnonzero(usable & ~held_back), _MOST_FITTED)
    calibrated = _thinned(np.flatnonzero(held_back), MOST_CALIBRATION_IMAGES)
    if not (len(fitted) and len(calibrated)):
        raise SlidesError("novelty needs images to fit and others to calibrate on; all are on one side of the split")
    statistics, constant = _fit_groups(images.features[fitted], groups, len(calibrated))
    if not statistics:
        raise SlidesError(
            f"the features of all {count:,} images are the same; novelty needs images that differ, and a network that "
            "tells them apart"
        )
    novelty = _calibrate(statistics, images.features, len(fitted), calibrated)
    notes = [*_image_notes(images, usable, classes), *_mixture_notes(images, usable), *_calibration_notes(novelty)]
    if constant:
        notes.append(f"{' and '.join(constant)} answered the same to every image, and is left out of novelty")
    return novelty, notes


def held_back_blocks(names: Sequence[str], usable: Mask) -> Mask:
    """(N,) every second of 8 blocks of consecutive images of each folder, in their natural order.

    Neighbors are often of one patient and one slide, and look too much alike to calibrate on.

    Args:
        names: N paths.
        usable: (N,) images that can be held back at all.
    """
    folders: dict[str, list[int]] = defaultdict(list)
    for row in np.flatnonzero(usable).tolist():
        folders[os.path.dirname(names[row])].append(row)
    held_back = np.zeros(len(names), bool)
    surplus = 0  # held back beyond one half
    for folder in sorted(folders, key=natural_key):
        rows = np.array(sorted(folders[folder], key=lambda row: natural_key(names[row])))
        odd = np.arange(len(rows)) * min(_BLOCKS, len(rows)) // len(rows) % 2 == 1
        more = 2 * int(odd.sum()) - len(rows)
        chosen = odd if abs(surplus + more) < abs(surplus - more) else ~odd
        held_back[rows[chosen]] = True
        surplus += more if chosen is odd else -more
    return held_back


def _fit_groups(
    features: Matrix, groups: Sequence[FeatureGroup], calibration_images: int
) -> tuple[list[GroupStatistics], list[str]]:
    """Statistics of the groups that vary, with the scale 1, and the names of those that do not."""
    rank = LARGEST_RANK
    ranks = [min(rank, group.width) for group in groups]
    while rank > 1 and statistics_bytes(groups, ranks, calibration_images) > LARGEST_BYTES:
        rank -= 1
        ranks = [min(rank, group.width) for group in groups]
    fits = [_fit_group(features, group, rank) for group, rank in zip(groups, ranks, strict=True)]
    return [fit for fit in fits if fit], [group.name for group, fit in zip(groups, fits, strict=True) if not fit]


def _fit_group(features: Matrix, group: FeatureGroup, rank: int) -> GroupStatistics | None:
    """The ``rank`` widest axes of a group's correlations; None where all of its features are constant.

    A feature's spread counts as not narrower than the rounding of its size, so that what a machine rounds away weighs
    nothing; and each axis's variance is drawn towards the mean variance, so that what few images leave open does not.
    """
    values = features[:, group.columns].astype(np.float64)
    mean, spread = values.mean(axis=0), values.std(axis=0)
    size = np.sqrt(np.square(values).mean(axis=0))
    varies = spread > size * 1e-6
    if not varies.any():
        return None
    spread = np.sqrt(np.square(spread) + np.square(_ROUNDING * size))
    weights = np.divide(1, spread, out=np.zeros_like(spread), where=varies)
    standardized = (values - mean) * weights
    variances, axes = _principal_axes(standardized, rank)
    shrunk = (1 - _SHRINKAGE) * variances.clip(0) + _SHRINKAGE * np.square(standardized).mean()
    projection = weights[:, None] * axes / np.sqrt(shrunk)
    return GroupStatistics(group, mean.astype(np.float32), projection.astype(np.float32), 1.0)


def _principal_axes(
    standardized: npt.NDArray[np.float64], rank: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(K,) variances and (C, K) axes, widest first, of (N, C) deviations; K is ``rank``, or less.

    N images, whose deviations sum to zero, span N - 1 axes at most: a wider network has no axis beyond these.
    """
    count, width = standardized.shape
    if width <= count:
        variances, axes = np.linalg.eigh(standardized.T @ standardized / count)
        return variances[::-1][:rank], axes[:, ::-1][:, :rank]
    variances, weights = np.linalg.eigh(standardized @ standardized.T / count)  # smaller than (C, C)
    spanned = int((variances > variances[-1] * _LEAST_VARIANCE).sum())
    variances, weights = (values[..., ::-1][..., : min(rank, spanned)] for values in (variances, weights))
    return variances, standardized.T @ weights / np.sqrt(count * variances)


def _calibrate(
    statistics: Sequence[GroupStatistics], features: Matrix, fitted_images: int, calibrated: Rows
) -> Novelty:
    """Statistics whose scale is the mean squared distance of the held-back images, with the scores of these."""
    held_back = features[calibrated]
    means = np.square(group_distances(statistics, held_back), dtype=np.float64).mean(axis=0)
    if not (np.isfinite(means).all() and (means > 0).all()):
        raise SlidesError("the features are too large, or too much alike, to measure how far images are from others")
    scaled = tuple(replace(one, scale=float(np.float32(mean))) for one, mean in zip(statistics, means, strict=True))
    scores = np.sort(combined(group_distances(scaled, held_back)))
    return Novelty(scaled, features.shape[1], fitted_images, scores)


def _image_notes(images: ReferenceImages, usable: Mask, classes: int) -> list[str]:
    notes: list[str] = []
    if left_out := int((~usable).sum()):
        example = images.names[int(np.flatnonzero(~usable)[0])]
        notes.append(f"{left_out:,} images have features that are not finite and are left out, as {example!r}")
    if classes > 1 and len(np.unique(images.predicted[usable])) == 1:
        notes.append(
            f"the engine takes all {int(usable.sum()):,} images for one of its {classes:,} classes; "
            "images of the others may be called novel"
        )
    return notes


def _mixture_notes(images: ReferenceImages, usable: Mask) -> list[str]:
    rows = np.flatnonzero(usable)
    if (pair := two_kinds(images.features[rows][:, COLOR])) is None:
        return []
    first, second = (images.names[rows[place]] for place in pair)
    return [
        f"the images are of two kinds, with a gap between their colors: {first!r} is typical of one, {second!r} of the "
        "other, and neither is called novel; if only one is what the network was trained for, give novelty that alone"
    ]


def _calibration_notes(novelty: Novelty) -> list[str]:
    if tells_novel(novelty.calibration_images):
        return []
    return [
        f"novelty has {novelty.calibration_images:,} held-back images, and needs {ENOUGH_CALIBRATION_IMAGES} to call "
        f"an image novel; give it {2 * ENOUGH_CALIBRATION_IMAGES + 2} images or more"
    ]


def _thinned(rows: Rows, most: int) -> Rows:
    """At most ``most`` of ``rows``, evenly spaced."""
    return rows if len(rows) <= most else rows[np.linspace(0, len(rows) - 1, most).round().astype(np.intp)]
