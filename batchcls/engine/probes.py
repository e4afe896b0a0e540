"""Draw probes: images that are the same on every machine, which every engine answers before its run begins."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from batchcls.records import Pixels

PROBE_COUNT = 16
"""Number of an engine's probes: two of the chunks that OpenVINO infers."""
CANDIDATE_COUNT = 48
"""Number of the drawn images that probes are mixed from."""
FULL_WEIGHT = 256
"""Weight of a mixture's second image at which nothing of the first image is left."""
_SCALES = ((8, 3), (20, 3), (112, 1))
"""Patches across an image, and their weight, for each of the layers that make up a drawing."""
_PAPER = (235, 220, 228)
_INKS = ((92, 52, 132), (60, 40, 110), (178, 160, 205), (214, 150, 158))
"""RGB of stained nuclei, cytoplasm and red cells, about which a network of slides is undecided."""
_SHADES = 16
"""Number of steps from a pale to a dark drawing."""

Mixture = tuple[int, int, int]
"""Numbers of two candidates, and the weight of the second one, 0 to `FULL_WEIGHT`."""


def draw_probes(size_px: tuple[int, int], mixtures: Sequence[Mixture] = ()) -> Pixels:
    """An engine's probes, (N, H, W, 3) uint8 RGB, computed in whole numbers alone.

    Args:
        size_px: Height and width.
        mixtures: The manifest's probes: mixtures of `draw_candidates`. Empty for an engine folder of an older version,
            whose probes are a series of 16 drawings of their own.
    """
    if not mixtures:
        return _draw_images(range(PROBE_COUNT), PROBE_COUNT, size_px)
    first, second, weights = np.array(mixtures, np.uint32).T
    images, places = np.unique(np.concatenate([first, second]), return_inverse=True)
    drawn = draw_candidates(size_px, images.tolist()).astype(np.uint32)
    weights = weights[:, None, None, None]
    mixed = drawn[places[: len(first)]] * (FULL_WEIGHT - weights) + drawn[places[len(first) :]] * weights
    pixels: Pixels = (mixed // FULL_WEIGHT).astype(np.uint8)
    return pixels


def draw_candidates(size_px: tuple[int, int], numbers: Sequence[int] = range(CANDIDATE_COUNT)) -> Pixels:
    """The candidates of the given numbers, (N, H, W, 3) uint8 RGB: patches of stain on paper, from pale to dark."""
    return _draw_images(numbers, CANDIDATE_COUNT, size_px)


def _draw_images(numbers: Sequence[int], count: int, size_px: tuple[int, int]) -> Pixels:
    """Drawings of the given numbers, of a series of ``count``.

    NumPy has frozen what `RandomState` draws. Source: https://numpy.org/neps/nep-0019-rng-policy.html
    """
    random = np.random.RandomState(20261121)  # the streams of newer generators may change
    height, width = size_px
    rows, columns = np.arange(height), np.arange(width)
    selected = np.array(numbers)
    depth = np.zeros((len(selected), height, width, 1), np.int64)
    for patches, weight in _SCALES:
        grid: npt.NDArray[np.int64] = random.randint(0, 256, (count, patches, patches, 1))[selected]
        depth += weight * grid[:, (rows * patches // height)[:, None], columns * patches // width]
    depth = np.clip((depth // sum(weight for _, weight in _SCALES) - 96) * 2, 0, 255)
    darkness = (selected % _SHADES)[:, None, None, None] + 4
    ink = np.array(_INKS)[selected % len(_INKS)][:, None, None]
    paper = np.array(_PAPER)
    images: Pixels = (paper - (paper - ink) * depth * darkness // (255 * (_SHADES + 3))).astype(np.uint8)
    return images
