"""Sums of images' measures, from which the drift of a run and the reference of an engine are made."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from batchcls.engine.drift_kinds import Values, drift_kinds, drift_values
from batchcls.engine.drift_reference import BLOCK_IMAGES, LARGEST_MEASURE, DriftReference

LEAST_BLOCKS = 6
"""Fewest blocks of a reference: what fewer differ by is not known."""
_MORE_BLOCKS_THAN_LABELS = 4
_BETWEEN_BY_WITHIN = 1 / 16
"""Part of the variance of images that is added to that between blocks, of which few blocks may show too little."""
_LEAST_VARIANCE = 1e-6
"""Square of a change in any measure, one part in a thousand, that is none however constant the reference is."""
Codes = npt.NDArray[np.integer]


def fewest_reference_images(labels: int) -> int:
    """Fewest images from which a reference is made, if they have that many different labels."""
    return BLOCK_IMAGES * max(LEAST_BLOCKS, labels + _MORE_BLOCKS_THAN_LABELS)


class MeasureSums:
    """Sums of measures by predicted label, in memory that does not grow with the number of images.

    Args:
        names: Names of the measures.
        labels: Number of labels.
    """

    def __init__(self, names: Sequence[str], labels: int) -> None:
        self.names = tuple(names)
        self.images = np.zeros(labels, np.int64)
        """(labels,) images with the label."""
        self.measured = np.zeros(labels, np.int64)
        """(labels,) images among these whose measures are numbers that an image can have; the others are in no sum."""
        self._sums = np.zeros((labels, len(self.names)))

    def add(self, measures: npt.NDArray[np.floating], codes: Codes) -> None:
        """Add images.

        Args:
            measures: (N, measures) as `batchcls.engine.measures.image_measures` gives them.
            codes: (N,) position of each image's predicted label; images without a label, -1, are left out.
        """
        self._add_values(*self._finite(measures, codes))

    @property
    def means(self) -> Values:
        """(labels, measures), zero for a label without images."""
        return np.asarray(self._sums / np.maximum(self.measured, 1)[:, None])

    def _finite(self, measures: npt.NDArray[np.floating], codes: Codes) -> tuple[Values, Codes]:
        self.images += np.bincount(codes[codes >= 0], minlength=len(self.images))
        values = drift_values(self.names, measures)
        kept = (codes >= 0) & (np.abs(values) <= LARGEST_MEASURE).all(axis=1)
        return values[kept], codes[kept]

    def _add_values(self, values: Values, codes: Codes) -> None:
        self.measured += np.bincount(codes, minlength=len(self.images))
        np.add.at(self._sums, codes, values)


class ReferenceSums(MeasureSums):
    """The sums from which a `DriftReference` is made; a mean and a few counts are kept of each block of 64 images."""

    def __init__(self, names: Sequence[str], labels: int) -> None:
        super().__init__(names, labels)
        self._products = np.zeros((len(self.names), len(self.names)))
        self._rest: tuple[Values, Codes] = (np.zeros((0, len(self.names))), np.zeros(0, np.int64))
        self._block_means: list[Values] = []
        self._block_counts: list[tuple[Codes, Codes]] = []

    def add(self, measures: npt.NDArray[np.floating], codes: Codes) -> None:
        """Add images, in the natural order of their files, class folder by class folder."""
        values, codes = self._finite(measures, codes)
        self._add_values(values, codes)
        self._products += values.T @ values
        values, codes = np.concatenate([self._rest[0], values]), np.concatenate([self._rest[1], codes])
        whole = len(values) // BLOCK_IMAGES * BLOCK_IMAGES
        for start in range(0, whole, BLOCK_IMAGES):
            block = slice(start, start + BLOCK_IMAGES)
            self._block_means.append(values[block].mean(axis=0))
            present, counts = np.unique(codes[block], return_counts=True)
            self._block_counts.append((present, counts))
        self._rest = values[whole:], codes[whole:]

    @property
    def fewest_images(self) -> int:
        """Fewest images that make a reference, with the labels that these have."""
        return fewest_reference_images(int((self.measured > 0).sum()))

    def reference(self) -> DriftReference | None:
        """The reference that the images make; None for fewer than 6 blocks of 64, or than 4 blocks more than labels."""
        blocks, present = len(self._block_means), int((self.measured > 0).sum())
        if blocks * BLOCK_IMAGES < self.fewest_images:
            return None
        counts = np.zeros((blocks, len(self.images)), np.int64)
        for row, (codes, numbers) in enumerate(self._block_counts):
            counts[row, codes] = numbers
        shares, means = counts / BLOCK_IMAGES, self.means
        residuals = np.array(self._block_means) - shares @ means
        products = residuals.T @ residuals
        images = self._products - (means * self.measured[:, None]).T @ means
        within = _covariance((images - BLOCK_IMAGES * products) / (self.measured.sum() - blocks))
        within += _LEAST_VARIANCE * np.eye(len(within))
        products *= blocks / (blocks - present)  # for the means are of the same blocks
        between = _covariance((products - within * blocks / BLOCK_IMAGES) / (shares**2).sum())
        between += _BETWEEN_BY_WITHIN * within
        lowest = {kind.name: kind.threshold for kind in drift_kinds(self.names)}
        draft = DriftReference(self.names, self.images, self.measured, means, within, between, blocks, lowest)
        return draft.with_thresholds(residuals, counts)


def _covariance(matrix: Values) -> Values:
    """The nearest covariance to an estimate, in which a variance near zero may have come out negative."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return np.asarray((vectors * values.clip(0)) @ vectors.T)
