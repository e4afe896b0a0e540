"""The first directory of a TIFF, read without a decoder."""

import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Pread = Callable[[int, int], bytes]
"""Function from an offset and a length to bytes of a file, which are fewer only where the file ends."""

WIDTH, HEIGHT, BITS_PER_SAMPLE, COMPRESSION, DESCRIPTION, SAMPLES_PER_PIXEL = 256, 257, 258, 259, 270, 277
STRIP_OFFSETS, STRIP_BYTES, TILE_WIDTH, TILE_LENGTH, TILE_OFFSETS, TILE_BYTES = 273, 279, 322, 323, 324, 325
NDPI_FORMAT_FLAG = 65420
_APERIO = b"Aperio"
"""Beginning of the image description in whole slides from Aperio's scanners."""
UNCOMPRESSED = 1

_MOST_ENTRIES = 1 << 16
_FIELDS = {
    1: "u1",
    2: "S1",
    3: "u2",
    4: "u4",
    5: "u8",
    6: "i1",
    7: "u1",
    8: "i2",
    9: "i4",
    10: "i8",
    11: "f4",
    12: "f8",
    13: "u4",
    16: "u8",
    17: "i8",
    18: "u8",
}
"""NumPy's type code by the number of a TIFF type; unknown types count as bytes."""
_LAST_TYPE = max(_FIELDS)
_ITEM_BYTES = np.array([np.dtype(_FIELDS.get(number, "u1")).itemsize for number in range(_LAST_TYPE + 1)])
"""(types,) size in bytes of a value, by the number of its type; types beyond count as the last one."""


@dataclass(frozen=True, slots=True)
class Directory:
    """A TIFF's first directory, as far as the file is complete."""

    entries: np.ndarray[tuple[int], np.dtype[np.void]]
    """(entries,) with the fields ``tag``, ``type``, ``count`` and ``value``, which holds an offset where values are
    too large to stand in it."""
    end: int
    """Offset of the first byte after the directory."""

    @property
    def value_bytes(self) -> int:
        """Size of an entry's ``value``: 4, or 8 in a BigTIFF."""
        return self.entries.dtype["value"].itemsize

    @property
    def sizes(self) -> npt.NDArray[np.float64]:
        """(entries,) size in bytes of each entry's values together."""
        counts = self.entries["count"].astype(np.float64)  # which cannot overflow
        items: npt.NDArray[np.int64] = _ITEM_BYTES[np.minimum(self.entries["type"], _LAST_TYPE)]
        return counts * items

    def has(self, tag: int) -> bool:
        """Whether an entry has a tag."""
        return bool((self.entries["tag"] == tag).any())

    def short(self, tag: int, default: int) -> int:
        """The 16-bit value of the first entry with a tag; ``default`` if there is no such entry."""
        entries = self.entries[self.entries["tag"] == tag]
        # The number stands first in its field, whatever the byte order.
        return int(entries["value"][:1].view(self._order + "u2")[0]) if len(entries) else default

    def read(self, tag: int, pread: Pread, most: int) -> npt.NDArray[np.generic]:
        """(count,) the values of the last entry with a tag; (0,) if there is no such entry, or it cannot be read.

        Raises:
            ValueError: If there are more than ``most``.
        """
        entries = self.entries[self.entries["tag"] == tag]
        if not len(entries):
            return np.empty(0)
        entry = entries[-1]
        if entry["count"] > most:
            raise ValueError(f"tag {tag} has {entry['count']:,} values")
        if int(entry["type"]) not in _FIELDS:
            return np.empty(0)
        field = np.dtype(self._order + _FIELDS[int(entry["type"])])
        size = int(entry["count"]) * field.itemsize
        raw = entries["value"][-1:].tobytes() if size <= self.value_bytes else pread(int(entry["value"]), size)
        return np.frombuffer(raw[:size], field) if len(raw) >= size else np.empty(0)

    @property
    def _order(self) -> str:
        """Byte order of the file, ``<`` or ``>``."""
        return self.entries.dtype["tag"].str[0]

    def is_whole_slide(self, pread: Pread) -> bool:
        """Whether the tags show that a slide scanner wrote the file, whatever its name."""
        if self.has(NDPI_FORMAT_FLAG):
            return True
        entries = self.entries[self.entries["tag"] == DESCRIPTION]
        return len(entries) > 0 and pread(int(entries[-1]["value"]), len(_APERIO)) == _APERIO


def first_directory(pread: Pread) -> Directory | None:
    """A file's first directory; None if it has none.

    Source: TIFF 6.0, section 2; BigTIFF has numbers of 8 bytes.
    """
    head = pread(0, 16)
    order = "<" if head[:2] == b"II" else ">"
    big = head[2:4] in (b"+\0", b"\0+")
    number, length = ("u8", "Q") if big else ("u4", "H")
    try:
        (start,) = struct.unpack_from(order + ("Q" if big else "I"), head, 8 if big else 4)
        (count,) = struct.unpack(order + length, pread(start, struct.calcsize(order + length)))
    except struct.error:
        return None
    names = ["tag", "type", "count", "value"]
    entry = np.dtype({"names": names, "formats": [order + form for form in ("u2", "u2", number, number)]})
    first = start + struct.calcsize(order + length)
    raw = pread(first, min(count, _MOST_ENTRIES) * entry.itemsize)
    entries = np.frombuffer(raw, entry, len(raw) // entry.itemsize)
    return Directory(entries, first + entries.nbytes + entry["value"].itemsize)
