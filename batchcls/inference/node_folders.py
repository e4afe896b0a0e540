"""Whether another machine sees the folders of a run as this one does."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from stat import S_ISDIR
from typing import TypeVar

from batchcls.images.sources.places import Place
from batchcls.storage.timeouts import call_with_timeout
from batchcls.storage.urls import is_url

Item = TypeVar("Item")
_MOST_FOLDERS = 64
_FIRST_ENTRIES, _SAMPLED_ENTRIES = 256, 8
"""Entries of a folder that a sample is drawn from, and its size."""


@dataclass(frozen=True, slots=True)
class FolderSample:
    """A folder as one machine sees it, by some of its entries."""

    folder: str
    """Absolute path."""
    sizes: Mapping[str, int | None]
    """Sizes of some entries in bytes, by name; None for a folder."""

    def difference(self, timeout_s: float) -> str | None:
        """How this machine sees the folder otherwise, in words; None if it sees the same."""
        try:
            return call_with_timeout(self._difference, timeout_s)
        except OSError as error:
            return f"{self.folder!r} cannot be read: {error.strerror or error}"

    def _difference(self) -> str | None:
        if not os.path.isdir(self.folder):
            return f"there is no folder {self.folder!r}"
        for name, size_bytes in self.sizes.items():
            path = os.path.join(self.folder, name)
            try:
                size_here = _size(path)
            except FileNotFoundError:
                return f"the folder {self.folder!r} holds no {name!r}"
            if size_here != size_bytes:
                return f"{path!r} is another file"
        return None


def folder_samples(places: Sequence[Place], roots: Sequence[str], timeout_s: float) -> list[FolderSample]:
    """Samples of the folders and files among ``places``, and of the ``roots`` that are folders.

    Raises:
        OSError: If the file system does not answer in time.
    """
    return call_with_timeout(lambda: list(_samples(places, roots)), timeout_s)


def _samples(places: Sequence[Place], roots: Sequence[str]) -> Iterator[FolderSample]:
    paths = [place for place in places if isinstance(place, Path) and place.exists()]
    for path in _spread(paths, _MOST_FOLDERS):
        folder = os.path.abspath(path)
        if path.is_dir():
            with os.scandir(path) as entries:
                names = sorted(entry.name for entry in islice(entries, _FIRST_ENTRIES))
        else:
            folder, name = os.path.split(folder)
            names = [name]
        yield FolderSample(folder, _sizes(folder, _spread(names, _SAMPLED_ENTRIES)))
    folders = [root for root in roots if root and not is_url(root) and os.path.isdir(root)]
    for root in _spread(folders, _MOST_FOLDERS):
        yield FolderSample(os.path.abspath(root), {})


def _sizes(folder: str, names: Iterable[str]) -> dict[str, int | None]:
    sizes = {}
    for name in names:
        path = os.path.join(folder, name)
        if os.path.exists(path):  # else a link that leads nowhere, or gone meanwhile
            sizes[name] = _size(path)
    return sizes


def _size(path: str) -> int | None:
    status = os.stat(path)
    return None if S_ISDIR(status.st_mode) else status.st_size


def _spread(items: Sequence[Item], most: int) -> Sequence[Item]:
    """Up to ``most`` of the items, evenly spread."""
    return items[:: max(1, -(-len(items) // most))]
