"""How strange an image looks to an engine: distances of its features from those of a reference folder's images."""

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from batchcls.networks.appearance import COLOR
from batchcls.networks.feature_layout import MOST_FEATURES, FeatureLayout

Vector = npt.NDArray[np.float32]
Matrix = npt.NDArray[np.float32]

COLOR_GROUP = "color"
"""Name of the group of the color numbers, the first one."""
LARGEST_BYTES = 5_000_000
"""Largest size of the statistics of an engine."""
MOST_CALIBRATION_IMAGES = 20_000
"""Number of held-back images, evenly spaced, whose scores are kept of a larger folder."""
ENOUGH_CALIBRATION_IMAGES = 99
"""Number of held-back images from which on the strangest of them are the strangest hundredth."""
_MOST_GROUPS = 32
_MOST_PRODUCTS = 1 << 18
"""Number of multiplications up to which OpenBLAS works in one thread; more threads would wait for busy cores."""
_ROWS = (4, 2)
"""Numbers of images that are multiplied at a time: in blocks of one size, few enough for one kernel of OpenBLAS, an
image's distance depends on no other image of its batch."""


@dataclass(frozen=True, slots=True)
class FeatureGroup:
    """Columns of an engine's features that are compared together: the color numbers, or a layer."""

    name: str
    start: int
    """First column."""
    width: int
    """Number of columns."""

    @property
    def columns(self) -> slice:
        return slice(self.start, self.start + self.width)


def feature_groups(layout: FeatureLayout) -> tuple[FeatureGroup, ...]:
    """The groups of an engine's features: color first, then the layers."""
    layers = enumerate(zip(layout.layers, layout.layer_slices, strict=True), 1)
    color = FeatureGroup(COLOR_GROUP, layout.appearance.start + COLOR.start, COLOR.stop - COLOR.start)
    return (color, *(FeatureGroup(f"layer{number}", own.start, layer.width) for number, (layer, own) in layers))


@dataclass(frozen=True, slots=True, eq=False)
class GroupStatistics:
    """A Gaussian of a group's features, as a projection onto axes along which its images vary by about one."""

    group: FeatureGroup
    mean: Vector
    """(C,) float32."""
    projection: Matrix
    """(C, K) float32."""
    scale: float
    """Mean squared distance of the held-back images; it is above 0."""

    def distances(self, features: Matrix) -> Vector:
        """(N,) float32: root of the squared distance over that of a typical held-back image; 1 is typical.

        Args:
            features: (N, F) float32, all of them.
        """
        deviations = features[:, self.group.columns] - self.mean
        rows = next((rows for rows in _ROWS if rows * self.projection.size <= _MOST_PRODUCTS), 1)
        padded = np.pad(deviations, ((0, -len(features) % rows), (0, 0)))
        blocks = padded.reshape(-1, rows, self.group.width) @ self.projection
        projected = blocks.reshape(len(padded), self.projection.shape[1])[: len(features)]
        squares = np.einsum("nk,nk->n", projected, projected) / np.float32(self.scale)
        return np.asarray(np.sqrt(squares), np.float32)


@dataclass(frozen=True, slots=True)
class NoveltyScores:
    """How strange each image of a batch looks."""

    novelty: npt.NDArray[np.float64]
    """(N,) share of the held-back images that look less strange, k / (n + 1); NaN where features are not finite."""
    distances: Matrix
    """(N, G) distance of each group; 1 is that of a typical held-back image; NaN where features are not finite."""


@dataclass(frozen=True, slots=True, eq=False)
class Novelty:
    """Statistics of a reference folder's features, and the scores of images that were held back from them."""

    groups: tuple[GroupStatistics, ...]
    feature_count: int
    """Number of features of an image, F."""
    fitted_images: int
    """Number of images that the Gaussians were fitted to."""
    calibration: Vector
    """(n,) float32, ascending: scores of the held-back images."""

    @property
    def calibration_images(self) -> int:
        """Number of held-back images, n."""
        return len(self.calibration)

    @property
    def group_names(self) -> tuple[str, ...]:
        """Names of the groups, in the order of the distances."""
        return tuple(statistics.group.name for statistics in self.groups)

    def score(self, features: Matrix) -> NoveltyScores:
        """Scores of images.

        Args:
            features: (N, F) float32.

        Raises:
            ValueError: If ``features`` has another number of columns.
        """
        if features.ndim != 2 or features.shape[1] != self.feature_count:
            raise ValueError(f"features have the shape {features.shape}; the statistics are of {self.feature_count:,}")
        distances = group_distances(self.groups, features)
        scores = combined(distances)
        ranks = np.searchsorted(self.calibration, scores) / (self.calibration_images + 1)
        return NoveltyScores(np.where(np.isnan(scores), np.nan, ranks), distances)

    @property
    def header(self) -> dict[str, Any]:
        """Layout and digest of the result of `to_bytes`, as JSON values for engine.json."""
        return {
            "features": self.feature_count,
            "groups": [
                [one.group.name, one.group.start, one.group.width, one.projection.shape[1]] for one in self.groups
            ],
            "fitted_images": self.fitted_images,
            "calibration_images": self.calibration_images,
            "sha256": hashlib.sha256(self.to_bytes()).hexdigest(),
        }

    def to_bytes(self) -> bytes:
        """Little-endian float32: mean, projection and scale of each group, then the held-back images' scores."""
        parts = [part for one in self.groups for part in (one.mean, one.projection, np.array([one.scale]))]
        return b"".join(np.asarray(part, "<f4").tobytes() for part in (*parts, self.calibration))

    @classmethod
    def from_bytes(cls, content: bytes, header: Mapping[str, Any]) -> Self:
        """The statistics that ``content`` holds.

        Args:
            content: Result of `to_bytes`.
            header: Value of `header` for it.

        Raises:
            ValueError: If one is not made for the other, or holds what no fit ends in.
        """
        shape = _Shape.of_header(header)
        if len(content) != shape.bytes:
            raise ValueError(f"it has {len(content):,} bytes, and engine.json says {shape.bytes:,}")
        if hashlib.sha256(content).hexdigest() != header.get("sha256"):
            raise ValueError("its SHA-256 is not the one in engine.json")
        numbers = np.frombuffer(content, "<f4").astype(np.float32)
        if not np.isfinite(numbers).all():
            raise ValueError("it holds numbers that are not finite")
        statistics: list[GroupStatistics] = []
        place = 0
        for group, rank in zip(shape.groups, shape.ranks, strict=True):
            cuts = list(itertools.accumulate((group.width, group.width * rank, 1), initial=place))
            mean, projection, scale = (numbers[start:end] for start, end in itertools.pairwise(cuts))
            statistics.append(GroupStatistics(group, mean, projection.reshape(group.width, rank), float(scale[0])))
            place = cuts[-1]
        calibration = numbers[place:]
        if not (all(one.scale > 0 for one in statistics) and (calibration >= 0).all() and _ascends(calibration)):
            raise ValueError("its scales are not positive, or its scores not in order")
        return cls(tuple(statistics), shape.features, shape.fitted_images, calibration)


def tells_novel(calibration_images: int, above: float = 0) -> bool:
    """Whether n held-back images are enough to call images novel from ``above`` on: the strangest has n / (n + 1)."""
    return calibration_images >= ENOUGH_CALIBRATION_IMAGES and calibration_images / (calibration_images + 1) >= above


def group_distances(groups: Sequence[GroupStatistics], features: Matrix) -> Matrix:
    """(N, G) float32, NaN in the rows of images of which a feature, or a distance, is not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        distances = np.stack([statistics.distances(features) for statistics in groups], axis=1)
    distances[~np.isfinite(distances).all(axis=1)] = np.nan
    return distances


def combined(distances: Matrix) -> Vector:
    """(N,) float32 score of each image: the sum of its distances."""
    return np.asarray(distances.sum(axis=1), np.float32)


def statistics_bytes(groups: Sequence[FeatureGroup], ranks: Sequence[int], calibration_images: int) -> int:
    """Number of bytes of `Novelty.to_bytes`."""
    columns = sum(group.width * (rank + 1) + 1 for group, rank in zip(groups, ranks, strict=True))
    return 4 * (columns + calibration_images)


def _ascends(values: Vector) -> bool:
    return bool((values[1:] >= values[:-1]).all())


@dataclass(frozen=True, slots=True)
class _Shape:
    """The sizes that a header gives, checked before memory is taken for them."""

    features: int
    groups: tuple[FeatureGroup, ...]
    ranks: tuple[int, ...]
    fitted_images: int
    calibration_images: int

    @classmethod
    def of_header(cls, header: Mapping[str, Any]) -> Self:
        try:
            entries = [(name, start, width, rank) for name, start, width, rank in header["groups"]]
            counts = [header[key] for key in ("features", "fitted_images", "calibration_images")]
        except (KeyError, TypeError) as error:
            raise ValueError(f"its entry in engine.json lacks a field, or a group is no list ({error})") from error
        numbers = [*counts, *(number for entry in entries for number in entry[1:])]
        if not all(type(number) is int and 0 <= number <= 1 << 40 for number in numbers):
            raise ValueError("its entry in engine.json holds a size that is no whole number")
        if not all(isinstance(entry[0], str) for entry in entries):
            raise ValueError("a group's name in engine.json is no text")
        features, fitted, calibration = counts
        groups = tuple(FeatureGroup(*entry[:3]) for entry in entries)
        shape = cls(features, groups, tuple(entry[3] for entry in entries), fitted, calibration)
        if not (1 <= len(groups) <= _MOST_GROUPS and features <= MOST_FEATURES and 0 < shape.bytes <= LARGEST_BYTES):
            raise ValueError(f"engine.json gives it no groups, or more than {LARGEST_BYTES:,} bytes")
        if not all(
            1 <= rank <= group.width and group.start + group.width <= features
            for group, rank in zip(groups, shape.ranks, strict=True)
        ):
            raise ValueError("a group in engine.json lies outside the features, or has more axes than columns")
        if not 1 <= calibration <= MOST_CALIBRATION_IMAGES:
            raise ValueError(f"engine.json gives it {calibration:,} held-back images")
        return shape

    @property
    def bytes(self) -> int:
        return statistics_bytes(self.groups, self.ranks, self.calibration_images)
