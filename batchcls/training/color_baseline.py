"""What colour alone gives away: the nearest neighbour by colour histogram."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from sklearn.neighbors import KNeighborsClassifier

from batchcls.interrupts import Interrupt
from batchcls.training.loading import opened

_BITS = 3
"""Of each of R, G and B: 512 colours."""
_SIDE_PX = 256
"""A larger image is made smaller first."""


def nearest_neighbour(
    train: tuple[Sequence[str], Sequence[int]], files: Sequence[str], stop: Interrupt
) -> npt.NDArray[np.int64]:
    """(files,) the class of the image of ``train`` whose colours are most alike, by the sum of absolute differences.

    Args:
        train: Image files, and a class each.
    """
    model = KNeighborsClassifier(1, metric="manhattan")
    model.fit(np.stack([_histogram(file) for file in stop.between(train[0])]), np.asarray(train[1]))
    return np.asarray(model.predict(np.stack([_histogram(file) for file in stop.between(files)])))


def _histogram(file: str) -> npt.NDArray[np.float32]:
    with opened(file) as image:
        image.draft("RGB", (_SIDE_PX, _SIDE_PX))
        small = image.convert("RGB")
        small.thumbnail((_SIDE_PX, _SIDE_PX))
        levels = np.asarray(small).reshape(-1, 3).astype(np.int32) >> (8 - _BITS)
    codes = (levels[:, 0] << 2 * _BITS) | (levels[:, 1] << _BITS) | levels[:, 2]
    counts = np.bincount(codes, minlength=1 << 3 * _BITS)
    return np.asarray(counts / counts.sum(), np.float32)
