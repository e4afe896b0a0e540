"""Images that every machine draws alike: an engine folder carries the answers, and every run gives them first."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from batchcls.records import Pixels

COUNT = 16
"""Probes of an engine: two of the chunks that OpenVINO infers, half of a GPU's batch."""
CANDIDATES = 48
"""Drawn images that probes are mixed from."""
WHOLE = 256
"""A mixture's weight of its second image, where nothing of the first is left."""
_SCALES = ((8, 3), (20, 3), (112, 1))
"""How many patches an image has across, and how much they weigh."""
_PAPER = (235, 220, 228)
_INKS = ((92, 52, 132), (60, 40, 110), (178, 160, 205), (214, 150, 158))
"""Of stained nuclei, cytoplasm and red cells: a network that knows slides is not of one mind about them."""
_SHADES = 16
"""From pale to dark."""

Mixture = tuple[int, int, int]
"""Two candidates by number, and the weight of the second one, 0 to `WHOLE`."""


def probe_pixels(size_px: tuple[int, int], mixtures: Sequence[Mixture] = ()) -> Pixels:
    """(N, H, W, 3) uint8: mixtures of `candidate_pixels`, computed in whole numbers alone.

    Args:
        mixtures: Of an engine folder. Folders of older versions name none: their probes are 16 images drawn by
            themselves.
    """
    if not mixtures:
        return _drawn(range(COUNT), COUNT, size_px)
    first, second, weights = np.array(mixtures, np.uint32).T
    images, places = np.unique(np.concatenate([first, second]), return_inverse=True)
    drawn = candidate_pixels(size_px, images.tolist()).astype(np.uint32)
    weights = weights[:, None, None, None]
    mixed = drawn[places[: len(first)]] * (WHOLE - weights) + drawn[places[len(first) :]] * weights
    pixels: Pixels = (mixed // WHOLE).astype(np.uint8)
    return pixels


def candidate_pixels(size_px: tuple[int, int], numbers: Sequence[int] = range(CANDIDATES)) -> Pixels:
    """(N, H, W, 3) uint8: patches of stain on paper, from pale to dark, by number."""
    return _drawn(numbers, CANDIDATES, size_px)


def _drawn(numbers: Sequence[int], count: int, size_px: tuple[int, int]) -> Pixels:
    """Those ``numbers`` of a series of ``count`` images.

    NumPy has frozen what `RandomState` draws. Source: https://numpy.org/neps/nep-0019-rng-policy.html
    """
    random = np.random.RandomState(20261121)  # the new generators' streams may change
    height, width = size_px
    rows, columns = np.arange(height), np.arange(width)
    chosen = np.array(numbers)
    depth = np.zeros((len(chosen), height, width, 1), np.int64)
    for patches, weight in _SCALES:
        grid: npt.NDArray[np.int64] = random.randint(0, 256, (count, patches, patches, 1))[chosen]
        depth += weight * grid[:, (rows * patches // height)[:, None], columns * patches // width]
    depth = np.clip((depth // sum(weight for _, weight in _SCALES) - 96) * 2, 0, 255)
    darkness = (chosen % _SHADES)[:, None, None, None] + 4
    ink = np.array(_INKS)[chosen % len(_INKS)][:, None, None]
    paper = np.array(_PAPER)
    images: Pixels = (paper - (paper - ink) * depth * darkness // (255 * (_SHADES + 3))).astype(np.uint8)
    return images
