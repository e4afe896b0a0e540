"""Images that every machine draws alike: an engine folder carries the answers to them, to check plans by."""

import numpy as np

from batchcls.records import Pixels

COUNT = 16
_SCALES = ((2, 5), (8, 2), (56, 1))
"""How many patches an image has across, and how much they weigh: colours that change slowly, with some texture."""


def probe_pixels(size_px: tuple[int, int]) -> Pixels:
    """(16, H, W, 3) uint8, made of whole numbers alone.

    NumPy has frozen what `RandomState` draws. Source: https://numpy.org/neps/nep-0019-rng-policy.html
    """
    random = np.random.RandomState(20261121)  # the new generators' streams may change
    rows, columns = (np.arange(side) for side in size_px)
    height, width = size_px
    total = np.zeros((COUNT, height, width, 3), np.int64)
    for patches, weight in _SCALES:
        grid = random.randint(0, 256, (COUNT, patches, patches, 3))
        total += weight * grid[:, (rows * patches // height)[:, None], columns * patches // width]
    return (total // sum(weight for _, weight in _SCALES)).astype(np.uint8)
