"""Boxes and codestream header of a JPEG 2000. Source: ITU-T T.800, A.5.1 (SIZ) and I.4 (boxes)."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from batchcls.images.formats.tiff import Pread

_CODESTREAM = b"\xff\x4f\xff\x51"
"""Markers SOC, then SIZ."""


class Box(NamedTuple):
    """A box of a JPEG 2000 file."""

    kind: bytes
    """Four bytes that name the kind, such as ``jp2c`` for the box with the image."""
    start: int
    """Offset of the box in the file."""
    head_bytes: int
    """Size of the box's head."""
    length: int
    """Size of the box with its head; 0: the box reaches to the end of the file."""


@dataclass(frozen=True, slots=True)
class J2kSize:
    """Tile size and bit depths from the codestream of a JPEG 2000."""

    tile_pixels: int
    """Number of pixels of a tile."""
    depths: tuple[int, ...]
    """Bits of each component."""


def walk_boxes(pread: Pread, entered: bytes = b"") -> Iterator[Box]:
    """The boxes of a file in order, as far as the file is complete.

    Args:
        pread: Reads bytes of the file.
        entered: Kind of boxes whose inner boxes are yielded too, after the box itself.
    """
    position = 0
    while len(head := pread(position, 16)) >= 8:
        length, kind, head_bytes = int.from_bytes(head[:4], "big"), head[4:8], 8
        if length == 1:
            length, head_bytes = int.from_bytes(head[8:], "big"), 16
        if len(head) < head_bytes:
            return
        yield Box(kind, position, head_bytes, length)
        if not length:
            return
        position += head_bytes if kind == entered else max(head_bytes, length)


def j2k_size(data: bytes) -> J2kSize:
    """Tile size and bit depths that the codestream of a file states.

    Raises:
        ValueError: If the file has no codestream, or a box that is smaller than its head.
        struct.error: If the codestream ends early.
    """
    start = _codestream_start(data)
    tile_width, tile_height = struct.unpack_from(">II", data, start + 24)
    (components,) = struct.unpack_from(">H", data, start + 40)
    depths = data[start + 42 : start + 42 + 3 * components : 3]
    return J2kSize(tile_width * tile_height, tuple(1 + (depth & 0x7F) for depth in depths))


def _codestream_start(data: bytes) -> int:
    if data.startswith(_CODESTREAM):
        return 0
    for box in walk_boxes(lambda offset, length: data[offset : offset + length]):
        start = box.start + box.head_bytes
        if box.kind == b"jp2c" and data[start : start + 4] == _CODESTREAM:
            return start
        if box.length < box.head_bytes:
            raise ValueError(f"a box of {box.length} bytes")
    raise ValueError("no codestream")
