"""Folders and files as a source of slides."""

import os
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from heapq import heappop, heappush
from pathlib import Path
from queue import SimpleQueue
from time import monotonic

from batchcls.errors import DecoderError
from batchcls.records import Slide
from batchcls.storage.file_client import FileProcess
from batchcls.storage.timeouts import READ_TIMEOUT_S
from batchcls.storage.transient_errors import NO_ANSWER

IMAGE_ENDINGS = frozenset(
    # Formats that the decoders read.
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".tif", ".tiff", ".webp")
    + (".jp2", ".j2k", ".j2c", ".jpc", ".jpx", ".pnm", ".pbm", ".pgm", ".ppm")
    # Formats that no decoder reads; such files are listed so that their rows tell the reason.
    + (".gif", ".heic", ".heif", ".avif", ".jxl", ".svs", ".ndpi")
)
_CHUNK_NAMES = 65_536
"""Number of names that are sorted together."""

_Chunk = tuple[str, str, bytes]
"""A root, a folder below it, and names of files in that folder, joined by NUL and compressed."""
_Identity = tuple[int, int] | str
"""A folder's device and inode, which identify it whatever its name; its path if they are not known."""


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
        self.complete = False
        self.skipped: Counter[str] = Counter()
        self.unlisted: list[str] = []
        self._slides = tuple(dict.fromkeys(slides))
        self._listed_folders: set[_Identity] = set()
        self._named: set[tuple[_Identity, str]] = set()
        self._links: list[tuple[int, str]] = []
        """Heap of links to folders: position of the root among the slides, and path below the root."""
        self._chunks: SimpleQueue[_Chunk | None] = SimpleQueue()
        self._timeout_s = timeout_s
        self._waiting: tuple[str, float] | None = None
        self._closed = False
        self._listed = self._start() if at_once else None

    @property
    def roots(self) -> tuple[str, ...]:
        """All folders that the ``root`` of a slide may name, in the order in which the user named them."""
        return tuple(dict.fromkeys(str(path) if path.is_dir() else str(path.parent) for path in self._slides))

    def __iter__(self) -> Iterator[Slide]:
        self._listed = self._listed or self._start()
        while (chunk := self._chunks.get()) is not None:
            root, folder, names = chunk
            for name in zlib.decompress(names).split(b"\0"):
                yield Slide(root, os.path.join(folder, os.fsdecode(name)))
        self._listed.result()

    def waiting(self) -> tuple[str, float] | None:
        """The folder that is waited for, and the seconds since then; None if there is none.

        Any thread may call this method.
        """
        waiting = self._waiting
        return waiting and (waiting[0], monotonic() - waiting[1])

    def close(self) -> None:
        """Stop listing; calling it twice is harmless."""
        self._closed = True
        if self._listed:
            self._lane.close()
            self._process.close()

    def _start(self) -> "Future[None]":
        self._process = FileProcess()
        self._lane = self._process.lane(self._timeout_s)
        pool = ThreadPoolExecutor(1, thread_name_prefix="listing")
        listed = pool.submit(self._fill)
        pool.shutdown(wait=False)
        return listed

    def _fill(self) -> None:
        """List all slides into the queue; runs in a thread of its own."""
        try:
            self._list_all()
        except DecoderError:
            if not self._closed:
                raise
        finally:
            self.complete = True
            self._chunks.put(None)
            self._lane.close()
            self._process.close()

    def _list_all(self) -> None:
        files = [path for path in self._slides if not path.is_dir()]
        self._named = {(self._identity(path.parent), path.name) for path in files}
        unlisted = set(self._named)
        for position, path in enumerate(self._slides):
            if path.is_dir():
                self._list_tree(position, "")
            elif (key := (self._identity(path.parent), path.name)) in unlisted:
                unlisted.remove(key)
                self._put(str(path.parent), "", [path.name])
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
            names: list[str] = []
            folders: list[str] = []
            for kind, name in self._entries(os.path.join(root, folder)):
                if (identity, name) in self._named:
                    continue  # the user names this file, so it is listed on its own
                if name.startswith("."):
                    self.skipped["hidden"] += 1
                elif kind == "/":
                    folders.append(os.path.join(folder, name))
                elif kind == "@":
                    heappush(self._links, (position, os.path.join(folder, name)))
                elif os.path.splitext(name)[1].lower() not in IMAGE_ENDINGS:
                    self.skipped["not an image"] += 1
                else:
                    names.append(name)
                    if len(names) == _CHUNK_NAMES:
                        self._put(root, folder, names)
                        names = []
            self._put(root, folder, names)
            pending += sorted(folders, reverse=True)

    def _entries(self, folder: str) -> Iterator[tuple[str, str]]:
        self._waiting = (folder, monotonic())
        try:
            for entry in self._lane.entries(folder):
                yield entry
                self._waiting = (folder, monotonic())
        except OSError as error:
            self.unlisted.append(f"{folder}: {self._reason(error)}")
        finally:
            self._waiting = None

    def _identity(self, folder: str | Path) -> _Identity:
        try:
            return self._lane.status(str(folder))[1]
        except OSError as error:
            self._reason(error)
            return str(folder)

    def _reason(self, error: OSError) -> str:
        """The reason of an error in words; after a timeout, a new lane replaces the old one."""
        if not isinstance(error, TimeoutError) or error.errno is not None:
            return error.strerror or str(error)
        self._lane.close()
        self._lane = self._process.lane(self._timeout_s)
        return f"{NO_ANSWER} {self._timeout_s:g} s"

    def _put(self, root: str, folder: str, names: list[str]) -> None:
        if names:
            self.count += len(names)
            packed = b"\0".join(sorted(map(os.fsencode, names)))
            self._chunks.put((root, folder, zlib.compress(packed, 1)))
