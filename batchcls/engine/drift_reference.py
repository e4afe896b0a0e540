"""How reference images look, and how far sets of images of their kind lie from them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from batchcls.engine.drift_kinds import Values, drift_kinds

BLOCK_IMAGES = 64
"""Consecutive images of a block, and the fewest images whose drift is computed."""
_MOST_MEASURES = 64
LARGEST_MEASURE = 256
"""Size above which no measure lies, on the scale on which they are averaged: of optical densities and of logarithms of
float32 numbers."""
_LARGEST_COVARIANCE = 1e6
_OWN_BLOCKS = 0.95
"""Part of the reference's own blocks, each left out of the rest, that the thresholds lie above."""


@dataclass(frozen=True, slots=True)
class DriftReference:
    """Means of reference images by label, and the spread of sets of their kind."""

    measures: tuple[str, ...]
    """Names of the measures."""
    images: npt.NDArray[np.int64]
    """(labels,) images with the label."""
    measured: npt.NDArray[np.int64]
    """(labels,) images among these that are in ``means``."""
    means: Values
    """(labels, measures), zero for a label without images."""
    within: Values
    """(measures, measures) the covariance of the images of a label within a block."""
    between: Values
    """(measures, measures) the covariance of blocks of a label, beyond that of means of so many independent images."""
    blocks: int
    """Number of blocks."""
    thresholds: Mapping[str, float]
    """The effect from which on a kind drifts, by the kind's name."""

    def __post_init__(self) -> None:
        labels, measures = len(self.images), len(self.measures)
        if not 0 < measures <= _MOST_MEASURES or len(set(self.measures)) < measures:
            raise ValueError("its reference of drift names no measures, or one twice")
        shapes = (self.measured.shape, self.means.shape, self.within.shape, self.between.shape)
        if shapes != ((labels,), (labels, measures), (measures, measures), (measures, measures)):
            raise ValueError("its reference of drift has numbers for other measures or labels than it names")
        numbers = np.concatenate(
            [self.means.ravel(), self.within.ravel(), self.between.ravel(), [*self.thresholds.values()]]
        )
        counts = np.concatenate([self.measured, self.images])
        if not np.isfinite(numbers).all() or (np.abs(self.means) > LARGEST_MEASURE).any() or (counts < 0).any():
            raise ValueError("its reference of drift holds numbers that no images have")
        if missing := {kind.name for kind in drift_kinds(self.measures)} - self.thresholds.keys():
            raise ValueError(f"its reference of drift has no threshold for {sorted(missing)}")
        if not all(threshold > 0 for threshold in self.thresholds.values()):
            raise ValueError("its reference of drift has a threshold that is not above 0")
        if not all(map(self._is_covariance, (self.within, self.between))):
            raise ValueError("its reference of drift has a covariance that no images have")

    def _is_covariance(self, matrix: Values) -> bool:
        """Whether effects can be computed by a matrix: of the measures of each kind, it is positive definite."""
        variances = matrix.diagonal()
        if not (np.allclose(matrix, matrix.T) and (variances > 0).all() and (variances < _LARGEST_COVARIANCE).all()):
            return False
        together = [kind.measures for kind in drift_kinds(self.measures) if kind.direction is None]
        columns = [[self.measures.index(name) for name in names] for names in together]
        return all(np.linalg.eigvalsh(matrix[np.ix_(own, own)]).min() > 0 for own in columns)

    @classmethod
    def of_values(cls, values: Mapping[str, Any]) -> Self:
        """The reference of JSON values.

        Raises:
            KeyError, TypeError, ValueError: If ``values`` are no reference.
        """
        images, measured = (np.array(values[name], np.int64) for name in ("images", "measured"))
        means, within, between = (np.array(values[name], np.float64) for name in ("means", "within", "between"))
        names, thresholds = tuple(map(str, values["measures"])), dict(values["thresholds"])
        blocks, least = int(values["blocks"]), {str(name): float(value) for name, value in thresholds.items()}
        return cls(names, images, measured, means, within, between, blocks, least)

    def values(self) -> dict[str, Any]:
        """JSON values, numbers to seven digits."""
        arrays = {name: getattr(self, name) for name in ("means", "within", "between")}
        return {
            "measures": list(self.measures),
            "images": self.images.tolist(),
            "measured": self.measured.tolist(),
            **{name: [[float(f"{value:.7g}") for value in row] for row in array] for name, array in arrays.items()},
            "blocks": self.blocks,
            "thresholds": dict(self.thresholds),
        }

    def variances(self, counts: npt.NDArray[np.integer], left_out: npt.NDArray[np.integer] | int = 0) -> Values:
        """(K, measures, measures) the covariance of how far the means of K sets lie off that do not drift.

        Images of one label may be of one slide, so that more of them do not average the spread between blocks out;
        those of different labels are taken for independent.

        Args:
            counts: (K, labels) images of each set.
            left_out: (K, labels) images that are left out of the reference.
        """
        known = np.maximum(self.measured - left_out, 1)
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        between = (shares**2 * (1 + 1 / np.maximum(known / BLOCK_IMAGES, 1))).sum(axis=1)
        within = (shares**2 * (1 / np.maximum(counts, 1) + 1 / known)).sum(axis=1)
        return np.asarray(between[:, None, None] * self.between + within[:, None, None] * self.within)

    def with_thresholds(self, residuals: Values, counts: npt.NDArray[np.int64]) -> Self:
        """The reference with thresholds above most of its own blocks, each of which is left out of the rest.

        Args:
            residuals: (blocks, measures) means of the blocks less those of their labels.
            counts: (blocks, labels) images of each block.
        """
        rest = self.measured / np.maximum(self.measured - counts, 1)
        apart = residuals * (counts / BLOCK_IMAGES * rest).sum(axis=1, keepdims=True)
        variances = self.variances(counts, counts)
        own = {kind.name: np.abs(kind.effects(self.measures, apart, variances)) for kind in drift_kinds(self.measures)}
        quantiles = {name: float(np.quantile(effects, _OWN_BLOCKS, method="higher")) for name, effects in own.items()}
        return replace(
            self, thresholds={k.name: max(k.threshold, quantiles[k.name]) for k in drift_kinds(self.measures)}
        )
