"""Whether a folder holds images of two kinds, such as two laboratories', with nothing between their colors."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Colors = npt.NDArray[np.float64]
Side = npt.NDArray[np.bool_]

SMALLEST_SHARE = 0.3
"""Share of the images below which a side is not a kind of its own, but a rare class or stain."""
_FEWEST = 20
"""Number of images below which a side is none either."""
_CLUSTERS = 6
_STARTS = 4
_REFINEMENTS = 3
_MOST_IMAGES = 4_000
"""Number of images, evenly spaced, that represent a larger folder."""
_SMALLEST_GAP = 3.3
"""Gap between the sides, in standard deviations of a side, from which on they are two kinds: one of all4's
classes has a gap of 2.7, halves of all4, pbc8 and bccd from 4.1; but so have two of all4's classes, Early and Pre."""
_SHRINKAGE = 0.02
_TAIL = 0.02
"""Share of each side that may reach into the gap."""


@dataclass(frozen=True, slots=True)
class ColorSplit:
    """The widest gap between images' colors."""

    second: Side
    """(N,) the images on the second side."""
    gap: float
    """Between the sides without their outermost 2 %, in standard deviations of a side; negative where they overlap."""


def two_kinds(colors: npt.NDArray[np.float32]) -> tuple[int, int] | None:
    """The most typical image of each of two kinds; None where the images are of one kind as far as colors tell.

    Args:
        colors: (N, 6) float32, finite.
    """
    rows = np.unique(np.linspace(0, len(colors) - 1, min(len(colors), _MOST_IMAGES)).astype(np.intp))
    values = colors[rows].astype(np.float64)
    spread = values.std(axis=0)
    values = (values - values.mean(axis=0))[:, spread > 0] / spread[spread > 0]
    split = widest_split(values) if values.shape[1] else None
    if split is None or split.gap < _SMALLEST_GAP:
        return None
    first, second = (_most_typical(values, side) for side in (~split.second, split.second))
    return int(rows[first]), int(rows[second])


def widest_split(values: Colors) -> ColorSplit | None:
    """The split of standardized colors, (N, C), with the widest gap of those found; None if all leave too few."""
    random = np.random.default_rng(0)
    best: ColorSplit | None = None
    for _ in range(_STARTS):
        clusters = _clusters(values, random)
        for second in _unions(clusters):
            split = _refined(values, second)
            if split and (best is None or split.gap > best.gap):
                best = split
    return best


def _clusters(values: Colors, random: np.random.Generator) -> npt.NDArray[np.intp]:
    """(N,) the cluster of each image, by k-means from k-means++ starts."""
    centers = values[random.integers(len(values), size=1)]
    for _ in range(_CLUSTERS - 1):
        nearest = _square_distances(values, centers).min(axis=1)
        if not nearest.any():
            break
        centers = np.vstack([centers, values[random.choice(len(values), p=nearest / nearest.sum())]])
    for _ in range(30):
        clusters: npt.NDArray[np.intp] = np.argmin(_square_distances(values, centers), axis=1)
        own = [values[clusters == number] for number in range(len(centers))]
        centers = np.stack([one.mean(axis=0) if len(one) else old for one, old in zip(own, centers, strict=True)])
    return clusters


def _square_distances(values: Colors, centers: Colors) -> Colors:
    return np.stack([np.square(values - center).sum(axis=1) for center in centers], axis=1)


def _unions(clusters: npt.NDArray[np.intp]) -> Iterator[Side]:
    """Every way to part the clusters into two sides; the first cluster is on the first side."""
    others = range(1, int(clusters.max()) + 1)
    for count in range(1, len(others) + 1):
        for chosen in itertools.combinations(others, count):
            yield np.isin(clusters, chosen)


def _refined(values: Colors, second: Side) -> ColorSplit | None:
    """The split after each image went to the side of Fisher's discriminant that it lies on; None if one is small."""
    fewest = max(_FEWEST, SMALLEST_SHARE * len(values))
    for step in range(_REFINEMENTS + 1):
        if not fewest <= second.sum() <= len(values) - fewest:
            return None
        places = _discriminant(values, second)
        one, other = places[~second], places[second]
        if step < _REFINEMENTS:
            spreads = one.std() + other.std()
            between = one.std() / spreads if spreads else 0.5
            second = places > one.mean() + between * (other.mean() - one.mean())
    spread = max(float(np.sqrt((one.var() + other.var()) / 2)), float(np.finfo(np.float32).tiny))
    return ColorSplit(second, float(np.quantile(other, _TAIL) - np.quantile(one, 1 - _TAIL)) / spread)


def _discriminant(values: Colors, second: Side) -> Colors:
    """(N,) each image's place on Fisher's linear discriminant between the sides."""
    one, other = values[~second], values[second]
    centered = np.where(second[:, None], values - other.mean(axis=0), values - one.mean(axis=0))
    within = centered.T @ centered / len(values)
    floor = max(float(np.trace(within)) / len(within), 1e-6)
    direction = np.linalg.solve(
        within + _SHRINKAGE * floor * np.eye(len(within)), other.mean(axis=0) - one.mean(axis=0)
    )
    return np.asarray(values @ direction)


def _most_typical(values: Colors, side: Side) -> int:
    """Number of the image of a side that is nearest to the side's mean."""
    return int(np.where(side, np.square(values - values[side].mean(axis=0)).sum(axis=1), np.inf).argmin())
