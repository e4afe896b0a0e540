"""Slides that have been listed and wait to be taken, with packed names, because there may be many millions."""

import os
import struct
import zlib
from array import array
from collections.abc import Iterator, Sequence
from queue import SimpleQueue

from batchcls.records import Slide

LISTED_PART = struct.Struct("<IIII")
"""Head of a part of a listing that another process sends: number of images, of hidden objects, of other objects, and
length of the packed names; behind it stand the packed names and the packed numbers."""
_Chunk = tuple[str, str, bytes, bytes]
"""A root, a folder below it, packed names in that folder, and packed sizes and times, or nothing."""


class NameQueue:
    """Slides of one thread for another one; ten million take some 80 MB."""

    def __init__(self) -> None:
        self._chunks: SimpleQueue[_Chunk | None] = SimpleQueue()

    def put(self, root: str, folder: str, names: bytes, numbers: bytes = b"") -> None:
        """Add slides.

        Args:
            root: Root of the slides.
            folder: Path of their folder below the root; empty: the root itself.
            names: Their names in the folder, as `packed_names` packs them.
            numbers: Their sizes and times, as `packed_numbers` packs them; empty where they are not known.
        """
        self._chunks.put((root, folder, names, numbers))

    def end(self) -> None:
        """End the iteration behind the last slide."""
        self._chunks.put(None)

    def __iter__(self) -> Iterator[Slide]:
        while (chunk := self._chunks.get()) is not None:
            root, folder, packed, numbers = chunk
            below = f"{folder}/" if folder else ""
            names = os.fsdecode(zlib.decompress(packed)).split("\0")
            if not numbers:
                for name in names:
                    yield Slide(root, below + name)
                continue
            sizes_and_times = array("q", zlib.decompress(numbers))
            yield from (
                Slide(root, below + name, size, time or None)
                for name, size, time in zip(
                    names, sizes_and_times[: len(names)], sizes_and_times[len(names) :], strict=True
                )
            )


def packed_names(names: Sequence[bytes]) -> bytes:
    """At least one name without NUL, compressed."""
    return zlib.compress(b"\0".join(names), 1)


def packed_numbers(sizes: Sequence[int], times_ns: Sequence[int]) -> bytes:
    """The size and the time of the last change of each file, in nanoseconds since 1970, or 0; compressed."""
    return zlib.compress(array("q", [*sizes, *times_ns]).tobytes(), 1)
