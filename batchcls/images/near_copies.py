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
_AXES, _SAMPLE_ROWS = 24, 10_000
"""Number of coordinates by which all pairs are compared first, and of rows from which their axes are computed."""


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
            return np.ones(np.broadcast_shapes(rows.shape, others.shape), bool)
        return np.asarray((rows < self.first_set) != (others < self.first_set))

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
    time grows with the square of the number of images: some seconds for 100,000.

    Args:
        largest: Largest distance of an image and its copy, see `perceptual_hash.NEAR`.
    """
    components = Components(len(images.hashes))
    for numbers in images.identities:
        components.join(*_same_pairs(images, numbers))
    for rows, others in _candidates(images, components, largest):
        is_near = nearness(images.hashes[rows], images.hashes[others]).distances <= largest
        components.join(rows[is_near], others[is_near])
    return components.labels


def nearest(images: ImageSets, copies: Rows, others: Rows) -> tuple[Rows, Nearness]:
    """For each of ``copies`` the one of ``others`` that is nearest, and how near it is; one that is the same is at 0.

    Where a pair does not count, its distance is infinite.
    """
    found = np.zeros(len(copies), np.intp)
    halves = np.square(images.hashes[others]).sum(axis=1) / 2
    for part in _blocks(np.arange(len(copies)), max(1, _MOST_PAIRS * 16 // len(others))):
        rows = copies[part]
        nearer = np.full((len(rows), len(others)), -np.inf, np.float32)  # the nearer, the larger
        for orientation in range(len(ORIENTATIONS)):
            turned = oriented(images.hashes[others], orientation)
            np.maximum(nearer, images.hashes[rows] @ turned.T - halves, out=nearer)
        nearer[images.are_same(rows[:, None], others)] = np.inf
        nearer[~images.may_pair(rows[:, None], others)] = -np.inf
        found[part] = others[nearer.argmax(axis=1)]
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


def _candidates(images: ImageSets, components: Components, largest: float) -> Iterator[tuple[Rows, Rows]]:
    """All pairs that may be near and are not joined yet, some at a time.

    Images are compared by a few coordinates in which they differ most, and only with images that are near in the first
    of these; what remains, by all numbers.
    """
    searched = np.flatnonzero(~is_blank(images.hashes))
    numbers = invariants(images.hashes[searched])
    leading = _leading_coordinates(numbers)
    order = np.argsort(leading[:, 0], kind="stable")
    searched, numbers, leading = searched[order], numbers[order], leading[order]
    is_first = np.ones(len(searched), bool) if images.first_set is None else searched < images.first_set
    columns = np.arange(len(searched)) if images.first_set is None else np.flatnonzero(~is_first)
    column_places = leading[columns, 0]
    for rows in _blocks(np.flatnonzero(is_first), _BLOCK_ROWS):
        lowest, highest = leading[rows[[0, -1]], 0]
        begin = rows[0] if images.first_set is None else np.searchsorted(column_places, lowest - largest - _ROUNDING)
        end = np.searchsorted(column_places, highest + largest + _ROUNDING)
        for others in _blocks(columns[begin:end], _BLOCK_COLUMNS):
            for left, right in _near_pairs(leading[rows], leading[others], largest):
                left, right = rows[left], others[right]
                is_new = components.labels[searched[left]] != components.labels[searched[right]]
                left, right = left[is_new], right[is_new]
                is_near = np.linalg.norm(numbers[left] - numbers[right], axis=1) <= largest + _ROUNDING
                yield searched[left[is_near]], searched[right[is_near]]


def _blocks(rows: Rows, size: int) -> Iterator[Rows]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _leading_coordinates(numbers: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(N, few) coordinates along the axes in which the rows differ most; no two rows are farther apart in these."""
    if len(numbers) < 2:
        return numbers[:, :_AXES]
    sample = numbers[:: max(1, len(numbers) // _SAMPLE_ROWS)]
    axes = np.linalg.eigh(np.cov(sample, rowvar=False))[1][:, : -_AXES - 1 : -1]
    return np.asarray((numbers - sample.mean(axis=0)) @ axes.astype(np.float32))


def _near_pairs(
    rows: npt.NDArray[np.float32], others: npt.NDArray[np.float32], largest: float
) -> Iterator[tuple[Rows, Rows]]:
    """Positions of pairs of rows that are at most ``largest`` apart, some at a time."""
    halves = [np.square(block).sum(axis=1, keepdims=True) / 2 for block in (rows, others)]
    ones = [np.ones_like(half) for half in halves]
    left, right = np.hstack([rows, -halves[0], ones[0]]), np.hstack([others, ones[1], -halves[1]])
    is_near = left @ right.T >= -(largest**2) / 2 - _ROUNDING  # minus half of the squared distance
    hits = np.flatnonzero(is_near)
    for part in _blocks(hits, _MOST_PAIRS):
        yield np.divmod(part, len(others))
