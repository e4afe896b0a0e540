"""Folders and files as a source of slides."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from heapq import heappop, heappush
from pathlib import Path

import pyarrow as pa

from batchcls.images.servers.image_names import has_image_ending
from batchcls.images.servers.name_queue import NameQueue, packed_names
from batchcls.images.sources.base import NOTHING_KEPT
from batchcls.images.sources.listing import Listing
from batchcls.records import Slide
from batchcls.storage.timeouts import READ_TIMEOUT_S

_ARCHIVES = {b".tar": "archive", b".parquet": "Parquet file"}
"""Reasons for which files are skipped that may hold images, by their endings."""
_FILE, _DOT = b"-."
_CHUNK_NAMES = 65_536
"""Least number of names that are sorted together."""

_Identity = tuple[int, int] | str
"""A folder's device and inode, which identify it whatever its name; its path if they are not known."""


def _is_image(entry: bytes) -> bool:
    """Whether an entry of a folder, its kind and its name, is a file with an image's ending, and not hidden."""
    return entry[0] == _FILE and entry[1] != _DOT and has_image_ending(entry)


class FolderSource:
    """A `batchcls.images.sources.base.Source` of the image files below folders, listed by another process.

    A folder's names are sorted 65,536 at a time, so that the first images of a folder of millions are yielded before
    its last name is known. Names in the queue are compressed: ten million take some 80 MB.

    A folder is listed once, even if it is named twice, is inside another one, or is reached through symbolic links.
    Links are followed last, so that a file is listed under its real path, and cycles end. Hidden names, and names
    without an image's ending, are skipped unless the user names them.

    Args:
        slides: Folders, searched to any depth, and files.
        at_once: Whether listing begins now, instead of with the iteration.
        timeout_s: How long the file system may take for one answer; folders without an answer are in ``unlisted``.
    """

    def __init__(self, slides: Sequence[Path], *, at_once: bool = True, timeout_s: float = READ_TIMEOUT_S) -> None:
        self.count = 0
        self.skipped: Counter[str] = Counter()
        self.unlisted: list[str] = []
        self._slides = tuple(dict.fromkeys(slides))
        self._listed_folders: set[_Identity] = set()
        self._named: dict[_Identity, set[bytes]] = {}
        """Names of the files that the user names, by their folder."""
        self._links: list[tuple[int, str]] = []
        """Heap of links to folders: position of the root among the slides, and path below the root."""
        self._queue = NameQueue()
        self._listing = Listing(self._list_all, self._queue.end, timeout_s)
        if at_once:
            self._listing.start()

    @property
    def complete(self) -> bool:
        """Whether the list has ended, so that ``count`` is final."""
        return self._listing.complete

    @property
    def kept(self) -> pa.Schema:
        """No columns: folders have none."""
        return NOTHING_KEPT

    @property
    def roots(self) -> tuple[str, ...]:
        """All folders that the ``root`` of a slide may name, in the order in which the user named them."""
        return tuple(dict.fromkeys(str(path) if path.is_dir() else str(path.parent) for path in self._slides))

    def __iter__(self) -> Iterator[Slide]:
        self._listing.start()
        yield from self._queue
        self._listing.check()

    def waiting(self) -> tuple[str, float] | None:
        """The folder that is waited for, and the seconds since then; None if there is none.

        Any thread may call this method.
        """
        return self._listing.waiting()

    def close(self) -> None:
        """Stop listing; calling it twice is harmless."""
        self._listing.close()

    def _list_all(self) -> None:
        unlisted: set[Path] = set()
        for path in self._slides:
            if not path.is_dir():
                names = self._named.setdefault(self._identity(path.parent), set())
                name = os.fsencode(path.name)
                if name not in names:  # else another of the slides is the same file
                    unlisted.add(path)
                names.add(name)
        for position, path in enumerate(self._slides):
            if path.is_dir():
                self._list_tree(position, "")
            elif path in unlisted:
                self._put(str(path.parent), "", [os.fsencode(path.name)])
        while self._links:
            self._list_tree(*heappop(self._links))

    def _list_tree(self, position: int, below: str) -> None:
        root = str(self._slides[position])
        pending = [below]
        while pending:
            folder = pending.pop()
            identity = self._identity(os.path.join(root, folder))
            if identity in self._listed_folders:
                self.skipped["folder listed already"] += 1
                continue
            self._listed_folders.add(identity)
            named = self._named.get(identity)
            names: list[bytes] = []
            folders: list[str] = []
            for entries in self._entries(os.path.join(root, folder)):
                if named:  # the user names these files, so they are listed on their own
                    entries = [entry for entry in entries if entry[1:] not in named]
                images = [entry for entry in entries if _is_image(entry)]
                names += [entry[1:] for entry in images]
                if len(images) < len(entries):
                    self._sort_others(position, folder, set(entries).difference(images), folders)
                if len(names) >= _CHUNK_NAMES:
                    self._put(root, folder, names)
                    names = []
            self._put(root, folder, names)
            pending += sorted(folders, reverse=True)

    def _sort_others(self, position: int, folder: str, entries: Iterable[bytes], folders: list[str]) -> None:
        """Count entries of a folder that are no images; folders and links to folders go where they are listed from."""
        for entry in entries:
            path = os.path.join(folder, os.fsdecode(entry[1:]))
            if entry[1:2] == b".":
                self.skipped["hidden"] += 1
            elif entry[:1] == b"/":
                folders.append(path)
            elif entry[:1] == b"@":
                heappush(self._links, (position, path))
            else:
                self.skipped[_ARCHIVES.get(entry[entry.rfind(b".") :].lower(), "not an image")] += 1

    def _entries(self, folder: str) -> Iterator[list[bytes]]:
        self._listing.wait_for(folder)
        try:
            for entry in self._listing.lane.entries(folder):
                yield entry
                self._listing.wait_for(folder)
        except OSError as error:
            self.unlisted.append(f"{folder}: {self._listing.reason(error)}")
        finally:
            self._listing.wait_for(None)

    def _identity(self, folder: str | Path) -> _Identity:
        try:
            return self._listing.lane.status(str(folder))[1]
        except OSError as error:
            self._listing.reason(error)
            return str(folder)

    def _put(self, root: str, folder: str, names: list[bytes]) -> None:
        if names:
            self.count += len(names)
            self._queue.put(root, folder, packed_names(sorted(names)))
