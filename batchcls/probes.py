"""Images that every machine draws alike: an engine folder carries the answers to them, to check plans by."""

import numpy as np

from batchcls.records import Pixels

COUNT = 16
_SCALES = ((8, 3), (20, 3), (112, 1))
"""How many patches an image has across, and how much they weigh."""
_PAPER = (235, 220, 228)
_INKS = ((92, 52, 132), (60, 40, 110), (178, 160, 205), (214, 150, 158))
"""Of stained nuclei, cytoplasm and red cells: a network that knows slides is not of one mind about them."""


def probe_pixels(size_px: tuple[int, int]) -> Pixels:
    """(16, H, W, 3) uint8: patches of stain on paper, from pale to dark, made of whole numbers alone.

    NumPy has frozen what `RandomState` draws. Source: https://numpy.org/neps/nep-0019-rng-policy.html
    """
    random = np.random.RandomState(20261121)  # the new generators' streams may change
    height, width = size_px
    rows, columns = np.arange(height), np.arange(width)
    depth = np.zeros((COUNT, height, width, 1), np.int64)
    for patches, weight in _SCALES:
        grid = random.randint(0, 256, (COUNT, patches, patches, 1))
        depth += weight * grid[:, (rows * patches // height)[:, None], columns * patches // width]
    depth = np.clip((depth // sum(weight for _, weight in _SCALES) - 96) * 2, 0, 255)
    darkness = np.arange(COUNT)[:, None, None, None] + 4
    ink = np.resize(_INKS, (COUNT, 3))[:, None, None]
    paper = np.array(_PAPER)
    images: Pixels = (paper - (paper - ink) * depth * darkness // (255 * (COUNT + 3))).astype(np.uint8)
    return images
