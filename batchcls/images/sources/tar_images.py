"""The images of a tar file as its listing holds them, in some 40 bytes each."""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from batchcls.storage.tar_headers import HARD_LINK, REGULAR, SPARSE, Member


@dataclass(frozen=True, slots=True)
class TarImages:
    """Images that follow one another in a tar file."""

    tar: str
    packed_names: bytes
    """Names, joined by NUL and compressed."""
    places: npt.NDArray[np.int64]
    """(images, 4) offset, size in bytes, time of change, and whether the file is sparse."""
    hashes: npt.NDArray[np.int64]
    """(images,) hash of each name."""

    @classmethod
    def of(cls, tar: str, members: Sequence[Member]) -> Self:
        """The images that are ``members``."""
        places = [(member.offset, member.size_bytes, member.modified_ns, member.kind == SPARSE) for member in members]
        names = [member.name for member in members]
        hashes = np.fromiter(map(hash, names), np.int64, len(names))
        return cls(tar, _packed(names), np.array(places, np.int64), hashes)

    def names(self) -> list[bytes]:
        """The name of each image."""
        return zlib.decompress(self.packed_names).split(b"\0")

    def only(self, stays: npt.NDArray[np.bool_]) -> Self:
        """The images where ``stays`` is true, of which there is at least one."""
        names = [name for name, stay in zip(self.names(), stays.tolist(), strict=True) if stay]
        return type(self)(self.tar, _packed(names), self.places[stays], self.hashes[stays])


def linked(images: Sequence[TarImages], links: Sequence[Member]) -> list[Member]:
    """The images that hard links lead to, under the names of the links; links to anything else are left out."""
    targets = {link.target for link in links}
    places: dict[bytes, list[int]] = {}
    for chunk in images if links else ():
        places |= {
            name: place for name, place in zip(chunk.names(), chunk.places.tolist(), strict=True) if name in targets
        }
    members = []
    for link in links:
        if place := places.get(link.target):
            places[link.name] = place
            offset, size, modified_ns, is_sparse = place
            members.append(Member(SPARSE if is_sparse else REGULAR, offset, size, modified_ns, link.name))
    return members


def add_to_index(index: dict[bytes, Member], members: Iterable[Member]) -> None:
    """Add the files among the members of a tar file to an index of those before, by their names."""
    for member in members:
        if member.kind in (REGULAR, SPARSE):
            index[member.name] = member
        elif member.kind == HARD_LINK and member.target in index:
            index[member.name] = index[member.target]


def without_earlier(images: Sequence[TarImages]) -> tuple[list[TarImages], int]:
    """All images of a tar file, but those after which another one has the same name, and the number of these."""
    earlier = _earlier_of_equal_names(images)
    if not earlier:
        return list(images), 0
    stays = np.ones(sum(len(chunk.places) for chunk in images), np.bool_)
    stays[earlier] = False
    result, start = [], 0
    for chunk in images:
        part = stays[start : start + len(chunk.places)]
        start += len(part)
        if part.any():
            result.append(chunk if part.all() else chunk.only(part))
    return result, len(earlier)


def _earlier_of_equal_names(images: Sequence[TarImages]) -> list[int]:
    """Positions of the images after which another one has the same name."""
    hashes = np.concatenate([chunk.hashes for chunk in images]) if images else np.empty(0, np.int64)
    order = np.argsort(hashes, kind="stable")
    equal = hashes[order[1:]] == hashes[order[:-1]]
    suspects = {*order[:-1][equal].tolist(), *order[1:][equal].tolist()}
    latest: dict[bytes, int] = {}
    earlier = []
    names = (name for chunk in images for name in chunk.names())
    for position, name in enumerate(names if suspects else ()):
        if position in suspects:
            if name in latest:
                earlier.append(latest[name])
            latest[name] = position
    return earlier


def _packed(names: Sequence[bytes]) -> bytes:
    return zlib.compress(b"\0".join(names), 1)
