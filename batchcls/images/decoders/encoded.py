"""Slides that have been read, and are not decoded yet."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from batchcls.images.formats.inspection import Header
from batchcls.records import Failure, Postponed, Slide
from batchcls.storage.timeouts import READ_TIMEOUT_S


@dataclass(slots=True)
class HeldMemory:
    """Memory in which the bytes of one or more files stand, until all of them have been released."""

    files: int
    """Number of files that have not been released."""
    give_back: Callable[[], None]
    """Frees the memory for other files."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """The bytes of a slide's file, and the header of its image."""

    slide: Slide
    data: bytes | memoryview
    """Bytes of the file; of a memoryview only until `batchcls.images.decoders.read_ahead.ReadAhead.release`."""
    header: Header
    memory: HeldMemory | None = None
    """Memory of the bytes, if it counts in the read budget."""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How slides are read ahead."""

    max_pixels: int
    """Largest number of pixels of an image; larger images are refused."""
    timeout_s: float = READ_TIMEOUT_S
    """How long the file system may take for one answer."""
    budget_bytes: int = 256 << 20
    """Largest number of bytes that are read and not decoded yet; one larger file may be read alone."""
    files_ahead: int = 256
    """Largest number of files that are read and not taken by the iteration yet."""
    largest_file_bytes: int | None = None
    """Size of the largest file; larger ones are postponed. None: ``budget_bytes``."""
    digests: bool = False
    """Whether each slide gets the digest of its file's bytes."""


def with_digest(item: Encoded) -> Encoded:
    """``item``, whose slide has the digest of the bytes."""
    if item.slide.digest is not None:
        return item
    return replace(item, slide=replace(item.slide, digest=content_digest(item.data)))


def content_digest(data: bytes | memoryview, more: Iterable[bytes] = ()) -> str:
    """The digest of a file, as `Slide.digest` holds it.

    Args:
        data: First bytes of the file, usually all.
        more: All other bytes.
    """
    digest = hashlib.blake2b(data, digest_size=16)
    for part in more:
        digest.update(part)
    return digest.hexdigest()


@dataclass(slots=True)
class EncodedGroup:
    """Files that have been read, to be decoded at one time."""

    encoded: list[Encoded] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    postponed: list[Postponed] = field(default_factory=list)
    files: int = 0
    pixels: int = 0
    read_s: float = 0.0

    def add(self, item: Encoded | Failure | Postponed) -> None:
        self.files += 1
        if isinstance(item, Encoded):
            self.encoded.append(item)
            self.pixels += item.header.width * item.header.height
        elif isinstance(item, Failure):
            self.failures.append(item)
        else:
            self.postponed.append(item)
