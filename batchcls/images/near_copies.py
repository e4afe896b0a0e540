"""Search for near copies among images by their perceptual hashes, all with all, in blocks of matrix products."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from batchcls.images.perceptual_hash import (
    NEAR,
    ORIENTATIONS,
    Hashes,
    Nearness,
    invariants,
    is_blank,
    nearness,
    oriented,
)

Rows = npt.NDArray[np.intp]
"""(N,) positions of images."""

_BLOCK_ROWS, _BLOCK_COLUMNS = 1024, 4096
_MOST_PAIRS = 1 << 16
"""Largest number of pairs whose hashes are compared at one time."""
_ROUNDING = 1e-5


@dataclass(frozen=True, slots=True)
class ImageSets:
    """Images among which copies are searched: in one set, or across two."""

    hashes: Hashes
    identities: tuple[Rows, ...] = ()
    """Each (N,): images with the same number are copies whatever their hashes; -1 for an image without a number."""
    first_set: int | None = None
    """Number of images of the first set, which come first; pairs within a set do not count. None: there is one set."""

    def may_pair(self, rows: Rows, others: Rows) -> npt.NDArray[np.bool_]:
        """Whether pairs count, by broadcasting: all but those within one of two sets."""
        if self.first_set is None:
            return np.broadcast_to(np.True_, np.broadcast_shapes(rows.shape, others.shape))
        return (rows < self.first_set) != (others < self.first_set)

    def are_same(self, rows: Rows, others: Rows) -> npt.NDArray[np.bool_]:
        """Whether pairs share an identity."""
        same = np.zeros(np.broadcast_shapes(rows.shape, others.shape), bool)
        for numbers in self.identities:
            same |= (numbers[rows] == numbers[others]) & (numbers[rows] >= 0)
        return same


class Components:
    """Sets of images that are joined one pair after the other.

    Args:
        images: Number of images, each of which is a set of its own at first.
    """

    def __init__(self, images: int) -> None:
        self.labels: Rows = np.arange(images)
        """(N,) smallest position in each image's set."""

    def join(self, rows: Rows, others: Rows) -> None:
        """Join the sets of each pair."""
        while True:
            ends = self.labels[rows], self.labels[others]
            low, high = np.minimum(*ends), np.maximum(*ends)
            if (low == high).all():
                return
            np.minimum.at(self.labels, high, low)
            while ((shorter := self.labels[self.labels]) != self.labels).any():
                self.labels = shorter


def joined_copies(images: ImageSets, largest: float = NEAR) -> Rows:
    """(N,) a number for each image, the same for an image and its copies, and for copies of copies.

    The number is the smallest position among them. Blank images are copies of those with the same identity only. The
    time grows with the square of the number of images: half a minute for 100,000 on two cores.

    Args:
        largest: Largest distance of an image and its copy, see `perceptual_hash.NEAR`.
    """
    components = Components(len(images.hashes))
    for numbers in images.identities:
        components.join(*_same_pairs(images, numbers))
    searched = (~is_blank(images.hashes)).nonzero()[0]
    for rows, others in _candidates(images, searched, largest):
        is_new = components.labels[rows] != components.labels[others]
        rows, others = rows[is_new], others[is_new]
        is_near = nearness(images.hashes[rows], images.hashes[others]).distances <= largest
        components.join(rows[is_near], others[is_near])
    return components.labels


def nearest(images: ImageSets, copies: Rows, others: Rows) -> tuple[Rows, Nearness]:
    """For each of ``copies`` the one of ``others`` that is nearest, and how near it is; one that is the same is at 0.

    Where a pair does not count, its distance is infinite.
    """
    found = np.zeros(len(copies), np.intp)
    step = max(1, _MOST_PAIRS * 16 // len(others))
    for start in range(0, len(copies), step):
        part = copies[start : start + step]
        products = np.full((len(part), len(others)), -2, np.float32)
        for orientation in range(len(ORIENTATIONS)):
            turned = oriented(images.hashes[others], orientation)
            np.maximum(products, images.hashes[part] @ turned.T, out=products)
        products[images.are_same(part[:, None], others)] = 2
        products[~images.may_pair(part[:, None], others)] = -3
        found[start : start + step] = others[products.argmax(axis=1)]
    return found, pair_nearness(images, found, copies)


def pair_nearness(images: ImageSets, rows: Rows, copies: Rows) -> Nearness:
    """How near each image is to its possible copy; infinitely far where the pair does not count, at 0 if the same."""
    near = nearness(images.hashes[rows], images.hashes[copies])
    near.distances[is_blank(images.hashes[rows]) | is_blank(images.hashes[copies])] = np.inf
    same = images.are_same(rows, copies)
    near.distances[same], near.orientations[same] = 0, 0
    near.distances[~images.may_pair(rows, copies)] = np.inf
    return near


def _same_pairs(images: ImageSets, numbers: Rows) -> tuple[Rows, Rows]:
    """Pairs that join all images with the same number: each with the first one, of the other set if there are two."""
    known = (numbers >= 0).nonzero()[0]
    if images.first_set is None:
        return _with_first(numbers, known, known)
    sides = known[known < images.first_set], known[known >= images.first_set]
    pairs = _with_first(numbers, *sides), _with_first(numbers, *sides[::-1])
    return np.concatenate([pairs[0][0], pairs[1][0]]), np.concatenate([pairs[0][1], pairs[1][1]])


def _with_first(numbers: Rows, firsts: Rows, rows: Rows) -> tuple[Rows, Rows]:
    """For each of ``rows`` the first of ``firsts`` with the same number, where there is one."""
    unique, places = np.unique(numbers[firsts], return_index=True)
    if not len(unique):
        return rows[:0], rows[:0]
    place = np.minimum(np.searchsorted(unique, numbers[rows]), len(unique) - 1)
    has_first = unique[place] == numbers[rows]
    return firsts[places[place[has_first]]], rows[has_first]


def _candidates(images: ImageSets, searched: Rows, largest: float) -> Iterator[tuple[Rows, Rows]]:
    """All pairs that may be near, some at a time."""
    least = 1 - largest**2 / 2 - _ROUNDING
    numbers = invariants(images.hashes[searched])
    first = len(searched) if images.first_set is None else int((searched < images.first_set).sum())
    for top in range(0, first, _BLOCK_ROWS):
        bottom = min(first, top + _BLOCK_ROWS)
        start = top if images.first_set is None else first
        for left in range(start, len(searched), _BLOCK_COLUMNS):
            near = (numbers[top:bottom] @ numbers[left : left + _BLOCK_COLUMNS].T) > least
            hits = np.flatnonzero(near)
            for begin in range(0, len(hits), _MOST_PAIRS):
                rows, others = np.divmod(hits[begin : begin + _MOST_PAIRS], near.shape[1])
                is_pair = rows + top < others + left
                yield searched[rows[is_pair] + top], searched[others[is_pair] + left]
