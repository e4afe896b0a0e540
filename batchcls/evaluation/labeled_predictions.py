"""True and predicted classes of the images of an evaluation."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class LabeledPredictions:
    """Readable images with a true and a predicted class: row i of every array is image i."""

    truth: npt.NDArray[np.int32]
    """(N,) position of the true class among the labels, from 0; N is 1 or more."""
    predicted: npt.NDArray[np.int32]
    """(N,) position of the predicted class, from 0."""
    probabilities: npt.NDArray[np.float32]
    """(N, C) predicted probabilities, 0 to 1."""
    groups: npt.NDArray[np.int64]
    """(N,) group of the image, from 0 without a gap; images of one group are resampled and cross-validated together."""
    is_grouped: bool = False
    """Whether images of one group depend on one another, rather than stand in a group to save time."""

    def rows(self, mask: npt.NDArray[np.bool_]) -> "LabeledPredictions":
        """Some of the images, in their groups.

        Args:
            mask: (N,) whether an image is among them.
        """
        _, groups = np.unique(self.groups[mask], return_inverse=True)
        return LabeledPredictions(
            self.truth[mask], self.predicted[mask], self.probabilities[mask], groups.astype(np.int64), self.is_grouped
        )

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """(N,) whether the predicted class is the true one."""
        return np.asarray(self.truth == self.predicted)

    @property
    def top(self) -> npt.NDArray[np.float32]:
        """(N,) largest probability of each image."""
        return np.asarray(self.probabilities.max(axis=1))

    @property
    def classes(self) -> int:
        """The number of classes, C."""
        return int(self.probabilities.shape[1])
