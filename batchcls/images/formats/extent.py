"""Where in a file its image ends, so that what follows it, however large, is not read."""

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from batchcls.images.formats.decode_limits import MOST_CHUNKS, Pread, first_directory

LARGE_BYTES = 8 << 20
"""Smaller files are read whole: that takes less than looking."""
_HEAD_BYTES = 64
"""Are always read: a damaged file may say that it ends in the middle of them."""
_WINDOW_BYTES = 1 << 20
_END_MARKS = (b"\xff\xd9", b"IEND\xaeB`\x82")
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""A byte 0xFF that begins a segment of a JPEG."""
_START_OF_SCAN, _END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"
_MOST_SEGMENTS = 1 << 16
_PNM = re.compile(rb"P([456])\s+(\d{1,9})\s+(\d{1,9})(?:\s+(\d{1,5}))?\s")
_UNCOMPRESSED_BMP = 0

_OFFSETS, _COUNTS = (273, 324), (279, 325)
"""Tags of a TIFF: where its strips or tiles are, and how many bytes each has."""
_MOST_PIECES = 1 << 22
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
}
_FIELDS |= {13: "u4", 16: "u8", 17: "i8", 18: "u8"}
"""By TIFF's number of a type."""
_NUMBERS = (259, 256, 257, 277)
"""Tags: compression, width, height, samples a pixel."""
_UNCOMPRESSED, _OLD_JPEG = 1, 6


@dataclass(slots=True)
class _Window:
    """A file, of which a part is kept."""

    pread: Pread
    start: int = 0
    data: bytes = b""

    def at(self, offset: int, length: int) -> bytes:
        if not self.start <= offset <= offset + length <= self.start + len(self.data):
            self.start, self.data = offset, self.pread(offset, max(length, _WINDOW_BYTES))
        return self.data[offset - self.start : offset - self.start + length]


def image_end(size_bytes: int, pread: Pread) -> int:
    """How many bytes from its beginning a file's image takes; ``size_bytes`` where that is not known, or all.

    Files that end as images of their format do are taken whole, whatever is in between. An image is decoded to the same
    pixels, or fails alike, with what follows it and without.
    """
    if size_bytes <= LARGE_BYTES:
        return size_bytes
    window = _Window(pread)
    head = window.at(0, _HEAD_BYTES)
    find = next((find for magic, find in _FORMATS.items() if head.startswith(magic)), None)
    if find is None or any(mark in pread(size_bytes - 64, 64) for mark in _END_MARKS):
        return size_bytes
    try:
        end = find(window)
    except (struct.error, ValueError, IndexError, OverflowError):  # it ends early, or its numbers lead nowhere
        return size_bytes
    return min(max(end, _HEAD_BYTES) if end else size_bytes, size_bytes)


def _of_jpeg(window: _Window) -> int | None:
    position, scans = 2, False
    length: int
    for _ in range(_MOST_SEGMENTS):
        marker, length = struct.unpack(">2sH", window.at(position, 4))
        scans |= marker == _START_OF_SCAN
        position += 2 + length
        if scans:
            position = _next_marker(window, position)
        if position < 0 or window.at(position, 1) != b"\xff":
            return None
        if scans and window.at(position, 2) == _END_OF_IMAGE:
            return position + 2
    return None


def _next_marker(window: _Window, position: int) -> int:
    """Where the next segment begins; -1 if none does."""
    while len(data := window.at(position, _WINDOW_BYTES)) > 1:
        if found := _MARKER.search(data):
            return position + found.start()
        position += len(data) - 1
    return -1


def _of_png(window: _Window) -> int | None:
    position = 8
    length: int
    for _ in range(MOST_CHUNKS):
        length, kind = struct.unpack(">I4s", window.at(position, 8))
        position += 12 + length
        if kind == b"IEND":
            break
    return position  # with more chunks it is refused, whatever follows


def _of_bmp(window: _Window) -> int | None:
    start, header, width, height, _, bits, compression = struct.unpack("<I I ii HHI", window.at(10, 24))
    if header < 40 or start < 14 + header or compression != _UNCOMPRESSED_BMP or width <= 0:
        return None
    return int(start + (width * bits + 31) // 32 * 4 * abs(height))


def _of_webp(window: _Window) -> int | None:
    (length,) = struct.unpack("<I", window.at(4, 4))
    return 8 + int(length) + int(length) % 2


def _of_pnm(window: _Window) -> int | None:
    found = _PNM.match(window.at(0, 64))
    if not found or (found[1] != b"4") != (found[4] is not None):
        return None
    width, height = int(found[2]), int(found[3])
    if found[1] == b"4":
        return found.end() + (width + 7) // 8 * height
    samples = width * height * (3 if found[1] == b"6" else 1)
    return found.end() + samples * (1 if int(found[4]) < 256 else 2)


def _of_jpeg2000(window: _Window) -> int | None:
    position = 0
    length: int
    for _ in range(_MOST_SEGMENTS):
        length, kind = struct.unpack(">I4s", window.at(position, 8))
        if length == 1:
            (length,) = struct.unpack(">Q", window.at(position + 8, 8))
        if length < 8:
            return None
        position += length
        if kind == b"jp2c":
            return position
    return None


def _of_tiff(window: _Window) -> int | None:
    """The end of what its first page is stored in, where pages were written one after the other."""
    tags = first_directory(window.at)
    if tags is None or not len(tags):
        return None
    order, wide = tags.dtype["tag"].str[0], tags.dtype["value"].itemsize
    (start,) = struct.unpack(order + ("Q" if wide == 8 else "I"), window.at(8 if wide == 8 else 4, wide))
    end, values = int(start) + (8 if wide == 8 else 2) + tags.nbytes + wide, {}
    for entry in tags:
        field = np.dtype(order + _FIELDS.get(int(entry["type"]), "u1"))
        size, value = int(entry["count"]) * field.itemsize, entry["value"].tobytes()
        if size > wide:
            end = max(end, int(entry["value"]) + size)
        if entry["tag"] in (*_OFFSETS, *_COUNTS, *_NUMBERS):
            if entry["count"] > _MOST_PIECES or field.kind != "u":
                return None
            raw = value[:size] if size <= wide else window.at(int(entry["value"]), size)
            values[int(entry["tag"])] = np.frombuffer(raw, field).astype(np.float64)  # which cannot overflow
    offsets = np.concatenate([values.get(tag, np.empty(0)) for tag in _OFFSETS])
    counts = np.concatenate([values.get(tag, np.empty(0)) for tag in _COUNTS])
    compression, width, height, samples = (values.get(tag, np.ones(1))[0] for tag in _NUMBERS)
    if not len(offsets) or len(offsets) != len(counts) or compression == _OLD_JPEG:
        return None
    if compression == _UNCOMPRESSED and counts.sum() < width * height * samples:  # of which decoders ask no counts
        return None
    return max(end, int((offsets + counts).max()))


_FORMATS: dict[bytes, Callable[[_Window], int | None]] = {
    b"\xff\xd8": _of_jpeg,
    b"\x89PNG": _of_png,
    b"BM": _of_bmp,
    b"RIFF": _of_webp,
    b"P4": _of_pnm,
    b"P5": _of_pnm,
    b"P6": _of_pnm,
    b"\0\0\0\x0cjP": _of_jpeg2000,
    b"II*\0": _of_tiff,
    b"MM\0*": _of_tiff,
    b"II+\0": _of_tiff,
}
