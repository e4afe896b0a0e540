"""Links from each copy to the image that it is a copy of, so that each group of copies has one image to keep."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from batchcls.images.near_copies import ImageSets, Rows, joined_copies, nearest, pair_nearness
from batchcls.images.perceptual_hash import NEAR


@dataclass(frozen=True, slots=True)
class CopyLinks:
    """Copies, each with the image that it is linked to, in the order of the groups."""

    copies: Rows
    """(links,) position of the copy."""
    images: Rows
    """(links,) position of the image that it is a copy of."""
    groups: Rows
    """(links,) number of the group, from 1."""
    distances: npt.NDArray[np.float32]
    """(links,) distance of the hashes, see `perceptual_hash.NEAR`; 0 for images with the same identity."""
    orientations: npt.NDArray[np.int8]
    """(links,) position in `perceptual_hash.ORIENTATIONS`: how the copy was made of the image."""


def copy_links(images: ImageSets, ranks: Rows, largest: float = NEAR) -> CopyLinks:
    """Link every image that has a copy to its group: to the first image of the group, or else to a linked one.

    Args:
        images: Images of one set or of two. With two, each link is between the sets.
        ranks: (N,) order in which images are preferred as the first of their group: the least first, those of the first
            set before those of the second.
        largest: Largest distance of an image and its copy.
    """
    labels = joined_copies(images, largest)
    order = np.lexsort((ranks, labels))
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    sizes = np.diff(starts, append=len(order))
    first = np.repeat(order[starts], sizes)
    is_copy = (np.repeat(sizes, sizes) > 1) & (first != order)
    rows, firsts = order[is_copy], first[is_copy]
    near = pair_nearness(images, firsts, rows)
    is_linked = near.distances <= largest
    linked = [_Links(rows[is_linked], firsts[is_linked])]
    left, left_labels = rows[~is_linked], labels[rows[~is_linked]]
    for label in np.unique(left_labels):
        members = order[np.searchsorted(labels[order], label) :][: int((labels == label).sum())]
        linked.append(_link_others(images, members, left[left_labels == label], largest))
    return _ordered(images, linked, labels, ranks)


@dataclass(frozen=True, slots=True)
class _Links:
    copies: Rows
    images: Rows


def _link_others(images: ImageSets, members: Rows, left: Rows, largest: float) -> _Links:
    """Links of the members of a group that are no copies of the first: to members that are linked already."""
    frontier = np.setdiff1d(members, left)
    copies, of = [], []
    while len(left):
        found, near = nearest(images, left, frontier)
        is_linked = near.distances <= largest
        if not is_linked.any():  # by rounding alone: the group was joined by pairs that are near
            is_linked = near.distances == near.distances.min()
        copies.append(left[is_linked])
        of.append(found[is_linked])
        frontier, left = left[is_linked], left[~is_linked]
    return _Links(np.concatenate(copies), np.concatenate(of))


def _ordered(images: ImageSets, linked: list[_Links], labels: Rows, ranks: Rows) -> CopyLinks:
    """All links, by the rank of the first image of their groups, then by the ranks of copies."""
    copies = np.concatenate([part.copies for part in linked])
    of = np.concatenate([part.images for part in linked])
    if images.first_set is not None:  # the copy is in the second set, whichever of the two was linked
        copies, of = np.maximum(copies, of), np.minimum(copies, of)
    near = pair_nearness(images, of, copies)
    least = np.full(len(labels), len(labels), np.intp)
    np.minimum.at(least, labels, ranks)
    order = np.lexsort((ranks[copies], ranks[of], least[labels[copies]]))
    groups = np.cumsum(np.diff(least[labels[copies[order]]], prepend=-1) != 0)
    return CopyLinks(copies[order], of[order], groups, near.distances[order], near.orientations[order])
