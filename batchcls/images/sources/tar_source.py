"""Tar files as a source of slides, such as the shards of WebDataset."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from threading import Semaphore

import pyarrow as pa

from batchcls.errors import SlidesError
from batchcls.images.servers.image_names import has_image_ending
from batchcls.images.sources.base import NOTHING_KEPT
from batchcls.images.sources.listing import Listing
from batchcls.images.sources.tar_images import TarImages, linked, without_earlier
from batchcls.records import Slide
from batchcls.storage.file_client import FileLane, FileProcess
from batchcls.storage.file_server import LIST_TAR, NEXT_MEMBERS
from batchcls.storage.tar_headers import FOLDER, HARD_LINK, LINK, REGULAR, SPARSE, UNKNOWN_TIME, Member, TarError
from batchcls.storage.tar_listing import unpacked
from batchcls.storage.timeouts import READ_TIMEOUT_S
from batchcls.storage.urls import bucket_and_key, is_url

SPARSE_REFUSED = "the tar file holds it without its holes, as a sparse file; unpack it"
_CHUNKS_AHEAD = 256
"""Largest number of chunks that are listed and not taken yet, but for those of one tar file."""
_COMPRESSED_ENDINGS = {".gz": "gunzip", ".tgz": "gunzip", ".zst": "unzstd", ".xz": "unxz", ".bz2": "bunzip2"}
"""Programs that unpack, by the last ending of a compressed tar file's name."""
_REASONS = {FOLDER: "folder in a tar file", LINK: "link in a tar file"}


class TarSource:
    """A `batchcls.images.sources.base.Source` of the images in tar files, which another process lists.

    The headers alone are read, and nothing is unpacked. A tar file may hold several members of one name, of which the
    last one counts, as when it is unpacked; so a tar file is listed to its end before its first image is yielded.

    Names that are hidden, or have no image's ending, are skipped, and so is all that is no regular file. Of an archive
    that ends early or is damaged the members before are listed, and it is in ``unlisted``.

    Args:
        tars: Tar files: all by their paths, or all by their URLs.
        at_once: Whether listing begins now, instead of with the iteration.
        timeout_s: How long the file system or the network may take for one answer.
        open_process: Starts the process that lists them.

    Raises:
        SlidesError: If a file's name says that it is compressed, so that no member can be read by itself, or if a URL
            cannot be used.
    """

    def __init__(
        self,
        tars: Sequence[str],
        *,
        at_once: bool = True,
        timeout_s: float = READ_TIMEOUT_S,
        open_process: Callable[[], FileProcess] = FileProcess,
    ) -> None:
        for tar in tars:
            _check_name(tar)
        self.count = 0
        self.skipped: Counter[str] = Counter()
        self.unlisted: list[str] = []
        self._tars = tuple(dict.fromkeys(tars))
        self._chunks: SimpleQueue[TarImages | None] = SimpleQueue()
        self._room = Semaphore(_CHUNKS_AHEAD)
        self._listing = Listing(self._list_all, lambda: self._chunks.put(None), timeout_s, open_process)
        if at_once:
            self._listing.start()

    @property
    def complete(self) -> bool:
        """Whether the list has ended, so that ``count`` is final."""
        return self._listing.complete

    @property
    def kept(self) -> pa.Schema:
        """No columns: tar files have none."""
        return NOTHING_KEPT

    @property
    def roots(self) -> tuple[str, ...]:
        """The folders of the tar files, or the URLs of what they are in."""
        return tuple(dict.fromkeys(os.path.dirname(tar) or "." for tar in self._tars))

    def __iter__(self) -> Iterator[Slide]:
        self._listing.start()
        while (chunk := self._chunks.get()) is not None:
            self._room.release()
            root, tar = os.path.split(chunk.tar)
            for name, place in zip(chunk.names(), chunk.places.tolist(), strict=True):
                yield _slide(root or ".", f"{tar}/{os.fsdecode(name)}", *place)
        self._listing.check()

    def waiting(self) -> tuple[str, float] | None:
        """The tar file that is waited for, and the seconds since then; None if there is none.

        Any thread may call this method.
        """
        return self._listing.waiting()

    def close(self) -> None:
        """Stop listing; calling it twice is harmless."""
        self._listing.closed = True
        self._room.release()
        self._listing.close()

    def _list_all(self) -> None:
        """List all slides into the queue; runs in a thread of its own."""
        listed_already: set[object] = set()
        for tar in self._tars:
            if (identity := self._identity(tar)) in listed_already:
                self.skipped["archive listed already"] += 1
                continue
            listed_already.add(identity)
            self._put(self._images(tar))

    def _images(self, tar: str) -> list[TarImages]:
        """The images in a tar file, as far as it can be listed; first those that are hard links to others."""
        chunks: list[TarImages] = []
        links: list[Member] = []
        self._listing.wait_for(tar)
        try:
            for members in listed_members(self._listing.lane, tar):
                images = [member for member in members if self._is_image(member)]
                links += [image for image in images if image.kind == HARD_LINK]
                if images := [image for image in images if image.kind != HARD_LINK]:
                    chunks.append(TarImages.of(tar, images))
                self._listing.wait_for(tar)
        except TarError as error:
            self.unlisted.append(f"{tar}: {error}")
        except OSError as error:
            self.unlisted.append(f"{tar}: {self._listing.reason(error)}")
        finally:
            self._listing.wait_for(None)
        aliases = linked(chunks, links)
        if len(aliases) < len(links):
            self.skipped[_REASONS[LINK]] += len(links) - len(aliases)
        return [TarImages.of(tar, aliases), *chunks] if aliases else chunks

    def _is_image(self, member: Member) -> bool:
        """Whether a member is listed; if not, it is counted."""
        if any(part.startswith(b".") and part not in (b".", b"..") for part in member.name.split(b"/")):
            self.skipped["hidden"] += 1
        elif member.kind not in (REGULAR, SPARSE, HARD_LINK):
            if member.kind != FOLDER:
                self.skipped[_REASONS.get(member.kind, "not an image")] += 1
        elif has_image_ending(member.name.rpartition(b"/")[2]):
            return True
        else:
            self.skipped["not an image"] += 1
        return False

    def _put(self, chunks: Sequence[TarImages]) -> None:
        chunks, earlier = without_earlier(chunks)
        if earlier:
            self.skipped["in the tar file again under the same name"] += earlier
        for chunk in chunks:
            self._room.acquire()
            if self._listing.closed:
                return
            self.count += len(chunk.places)
            self._chunks.put(chunk)

    def _identity(self, tar: str) -> object:
        """Device and inode of a file, which identify it whatever its name; the name if it has none."""
        try:
            return tar if is_url(tar) else self._listing.lane.status(tar)[1]
        except OSError as error:
            self._listing.reason(error)
            return tar


def listed_members(lane: FileLane, tar: str) -> Iterator[list[Member]]:
    """The members of a tar file, which the process of a lane lists some at a time.

    Raises:
        TarError: Where the file ends early or is damaged.
        OSError: If it cannot be read.
    """
    lane.ask(LIST_TAR, os.fsencode(tar))
    while packed := lane.ask(NEXT_MEMBERS):
        yield from unpacked(packed)


def _check_name(tar: str) -> None:
    """Refuse a tar file whose name says that it is compressed, and a URL that holds credentials.

    Raises:
        SlidesError: If it does.
    """
    if is_url(tar):
        bucket_and_key(tar)
    if program := _COMPRESSED_ENDINGS.get(os.path.splitext(tar)[1].lower()):
        raise SlidesError(
            f"{tar!r} is a compressed tar file, in which no image can be read without all before it; "
            f"{'copy it to a disk, and ' if is_url(tar) else ''}unpack it first: "
            f"{program} {os.path.basename(tar) if is_url(tar) else tar}"
        )


def _slide(root: str, path: str, offset: int, size_bytes: int, modified_ns: int, sparse: int) -> Slide:
    return Slide(
        root,
        path,
        size_bytes,
        None if modified_ns == UNKNOWN_TIME else modified_ns,
        offset,
        refusal=SPARSE_REFUSED if sparse else None,
    )
