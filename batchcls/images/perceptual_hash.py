"""A perceptual hash of images, which tells copies that were recompressed, resized, turned or mirrored.

The hash is the low frequencies of a small gray image, and its mean color. Turning and mirroring an image only swaps the
two directions of its frequencies and changes signs, so that one hash stands for all eight orientations.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from batchcls.networks.preprocess import LUMA, LUMA_TOTAL, Preprocess
from batchcls.records import Pixels

Hashes = npt.NDArray[np.float32]
"""(N, HASH_LENGTH): the frequencies, of length 1, then the mean color; zeros for blank images."""

_TURNS = ("turned 90", "turned 180", "turned 270")
ORIENTATIONS = ("as it is", *_TURNS, "mirrored", *(f"mirrored, {turn}" for turn in _TURNS))
"""How a copy was made of an image: mirrored left to right or not, and then turned clockwise by so many degrees."""
PREPROCESS = Preprocess(size_px=(64, 64))
"""How images are decoded for the hash."""
NEAR = 0.1
"""Largest `Nearness.distances` of an image and its copy. Copies in JPEG of quality 30 to 95, resized by 0.8 to 1.25 and
turned, stay below 0.05 in 99 % of cases; images of different places lie above 0.6, and none of 5e9 pairs below 0.3."""

_SIDE = PREPROCESS.size_px[0]
_PER_SIDE = 12
"""Number of frequencies in each direction."""
_FREQUENCIES = _PER_SIDE**2 - 1
_COLOR_WEIGHT = 3 / 255
"""Part of a hash for a level of color: a difference of 8 levels in one channel is a distance of 0.1. Recompression
changes the mean by less than one level; the same field in another stain, or in gray, is no copy."""
HASH_LENGTH = _FREQUENCIES + 3
_LEAST_STRUCTURE = 2.0
"""Smallest standard deviation, in levels of gray, of an image that is not blank. Fields of cells have 6 and more."""
_SHADING = 5
"""Sum of the two frequencies from which on they count as structure; lower ones are the shading of an empty field."""
_BLOCK = 1024
"""Images whose hashes are computed at one time."""


def _cosines() -> npt.NDArray[np.float32]:
    """(_PER_SIDE, _SIDE) orthonormal rows of the discrete cosine transform, type II."""
    frequency, place = np.arange(_PER_SIDE)[:, None], np.arange(_SIDE)
    rows = np.cos(np.pi * (2 * place + 1) * frequency / (2 * _SIDE)) * np.sqrt(2 / _SIDE)
    rows[0] /= np.sqrt(2)
    return np.asarray(rows, np.float32)


_COSINES = _cosines()
_ACROSS, _DOWN = np.arange(_PER_SIDE), np.arange(_PER_SIDE)[:, None]
_WEIGHTS = np.hypot(_ACROSS, _DOWN).astype(np.float32)
"""Weight of each frequency: the spectrum of an image falls by about this, and each frequency is to count the same."""
_IS_STRUCTURE = _ACROSS + _DOWN >= _SHADING
_SIGNS = np.where(_ACROSS % 2, -1, 1).astype(np.float32)
_UPPER, _DIAGONAL = np.triu_indices(_PER_SIDE, 1), np.arange(1, _PER_SIDE)


def hashes(pixels: Pixels) -> Hashes:
    """The hashes of images; zeros for those that are blank, which look like all other blank ones.

    Args:
        pixels: (N, 64, 64, 3) uint8 RGB, decoded as `PREPROCESS` says.
    """
    result = np.empty((len(pixels), HASH_LENGTH), np.float32)
    for start in range(0, len(pixels), _BLOCK):
        block = pixels[start : start + _BLOCK]
        frequencies = _COSINES @ _gray(block) @ _COSINES.T
        structure = np.sqrt(np.square(frequencies[:, _IS_STRUCTURE]).sum(axis=1)) / _SIDE
        rows = (frequencies * _WEIGHTS).reshape(len(block), -1)[:, 1:]
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), _LEAST_STRUCTURE)
        colors = block.mean(axis=(1, 2), dtype=np.float32) * np.float32(_COLOR_WEIGHT)
        result[start : start + _BLOCK] = np.hstack([rows, colors])
        result[start : start + _BLOCK][structure < _LEAST_STRUCTURE] = 0
    return result


def is_blank(rows: Hashes) -> npt.NDArray[np.bool_]:
    """(N,) whether each hash is that of a blank image."""
    return np.asarray(~rows.any(axis=1))


def oriented(rows: Hashes, orientation: int) -> Hashes:
    """The hashes that the images have in one of `ORIENTATIONS`."""
    quarter_turns, mirrored = orientation % 4, orientation >= 4
    square = _squares(rows)
    if mirrored:
        square = square * _SIGNS
    for _ in range(quarter_turns):  # a quarter turn clockwise is a transposition and then a mirror, left to right
        square = square.swapaxes(1, 2) * _SIGNS
    return np.hstack([square.reshape(len(rows), _FREQUENCIES + 1)[:, 1:], rows[:, _FREQUENCIES:]])


def oriented_pixels(pixels: Pixels, orientation: int) -> Pixels:
    """An image, (H, W, 3), in one of `ORIENTATIONS`."""
    return np.rot90(pixels[:, ::-1] if orientation >= 4 else pixels, -(orientation % 4))


def invariants(rows: Hashes) -> npt.NDArray[np.float32]:
    """(N, HASH_LENGTH) numbers that are the same in all orientations.

    The distance between two rows is at most that between the hashes in any orientation, so that a search by these
    numbers misses no pair.
    """
    square = np.abs(_squares(rows))
    upper, lower = square[:, _UPPER[0], _UPPER[1]], square[:, _UPPER[1], _UPPER[0]]
    diagonal = square[:, _DIAGONAL, _DIAGONAL]
    return np.hstack([np.maximum(upper, lower), np.minimum(upper, lower), diagonal, rows[:, _FREQUENCIES:]])


@dataclass(frozen=True, slots=True)
class Nearness:
    """How near images are to their possible copies."""

    distances: npt.NDArray[np.float32]
    """(N,) 0 for equal images, about 1.4 for unrelated ones of one color."""
    orientations: npt.NDArray[np.int8]
    """(N,) position in `ORIENTATIONS`: how the copy was made of the image."""


def nearness(images: Hashes, copies: Hashes) -> Nearness:
    """How near each image is to its possible copy in the same row, in the orientation that fits best."""
    best = np.full(len(images), np.inf, np.float32)
    orientations = np.zeros(len(images), np.int8)
    for orientation in range(len(ORIENTATIONS)):
        distances = np.linalg.norm(oriented(images, orientation) - copies, axis=1)
        is_better = distances < best
        best[is_better], orientations[is_better] = distances[is_better], orientation
    return Nearness(best, orientations)


def _gray(pixels: Pixels) -> npt.NDArray[np.float32]:
    """(N, H, W) levels of gray, 0 to 255; much faster than a product of matrices, which has three columns only."""
    gray = np.zeros(pixels.shape[:3], np.float32)
    for channel, part in enumerate(LUMA.tolist()):
        gray += pixels[..., channel] * np.float32(part / LUMA_TOTAL)
    return gray


def _squares(rows: Hashes) -> npt.NDArray[np.float32]:
    """(N, down, across) the frequencies of hashes, with 0 for the mean."""
    return np.pad(rows[:, :_FREQUENCIES], ((0, 0), (1, 0))).reshape(-1, _PER_SIDE, _PER_SIDE)
