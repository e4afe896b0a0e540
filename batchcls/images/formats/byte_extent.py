"""The end of the image in a file, after which no bytes need to be read."""

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from batchcls.images.formats.decode_limits import MOST_CHUNKS
from batchcls.images.formats.jpeg2000 import walk_boxes
from batchcls.images.formats.tiff import (
    COMPRESSION,
    HEIGHT,
    SAMPLES_PER_PIXEL,
    STRIP_BYTES,
    STRIP_OFFSETS,
    TILE_BYTES,
    TILE_OFFSETS,
    UNCOMPRESSED,
    WIDTH,
    Directory,
    Pread,
    first_directory,
)

LARGE_BYTES = 8 << 20
"""Size up to which files are read whole, which takes less time than looking for the image's end."""
_HEAD_BYTES = 64
"""Number of first bytes that are always read, even if a damaged header states an earlier end."""
_WINDOW_BYTES = 1 << 20
_END_MARKS = (b"\xff\xd9", b"IEND\xaeB`\x82")
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""Marker of a JPEG segment: the byte 0xFF, and the byte after it."""
_START_OF_SCAN, _END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"
_MOST_SEGMENTS = 1 << 16
_PNM = re.compile(rb"P([456])\s+(\d{1,9})\s+(\d{1,9})(?:\s+(\d{1,5}))?\s")
_UNCOMPRESSED_BMP = 0
_LEAST_BOX_BYTES = 8
"""Smallest size of a box of a JPEG 2000 that has an end of its own."""

_MOST_PIECES = 1 << 22
_OLD_JPEG = 6
"""TIFF compression whose data may stand anywhere in the file."""


@dataclass(slots=True)
class _Window:
    """A file of which the part that was read last is cached."""

    pread: Pread
    start: int = 0
    data: bytes = b""

    def at(self, offset: int, length: int) -> bytes:
        """Bytes from ``offset`` on; fewer only where the file ends."""
        if not self.start <= offset <= offset + length <= self.start + len(self.data):
            self.start, self.data = offset, self.pread(offset, max(length, _WINDOW_BYTES))
        return self.data[offset - self.start : offset - self.start + length]


def image_end(size_bytes: int, pread: Pread) -> int:
    """Offset of the end of a file's image; ``size_bytes`` if it is not known.

    For files of 8 MiB or less, and files that end with their format's end mark, it is ``size_bytes``. Decoding the
    bytes before the returned offset gives the same pixels, or the same failure, as decoding the whole file.
    """
    if size_bytes <= LARGE_BYTES:
        return size_bytes
    window = _Window(pread)
    head = window.at(0, _HEAD_BYTES)
    find = next((find for magic, find in _END_FINDERS.items() if head.startswith(magic)), None)
    if find is None or any(mark in pread(size_bytes - 64, 64) for mark in _END_MARKS):
        return size_bytes
    try:
        end = find(window)
    except (struct.error, ValueError, IndexError, OverflowError):  # the file ends early, or has impossible offsets
        return size_bytes
    return min(max(end, _HEAD_BYTES) if end else size_bytes, size_bytes)


def _jpeg_end(window: _Window) -> int | None:
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
    """Offset of the next segment; -1 if there is none."""
    while len(data := window.at(position, _WINDOW_BYTES)) > 1:
        if match := _MARKER.search(data):
            return position + match.start()
        position += len(data) - 1
    return -1


def _png_end(window: _Window) -> int | None:
    position = 8
    length: int
    for _ in range(MOST_CHUNKS):
        length, kind = struct.unpack(">I4s", window.at(position, 8))
        position += 12 + length
        if kind == b"IEND":
            break
    return position  # with more chunks it is refused, whatever follows


def _bmp_end(window: _Window) -> int | None:
    start, header, width, height, _, bits, compression = struct.unpack("<I I ii HHI", window.at(10, 24))
    if header < 40 or start < 14 + header or compression != _UNCOMPRESSED_BMP or width <= 0:
        return None
    return int(start + (width * bits + 31) // 32 * 4 * abs(height))


def _webp_end(window: _Window) -> int | None:
    (length,) = struct.unpack("<I", window.at(4, 4))
    return 8 + int(length) + int(length) % 2


def _pnm_end(window: _Window) -> int | None:
    match = _PNM.match(window.at(0, 64))
    if not match or (match[1] != b"4") != (match[4] is not None):
        return None
    width, height = int(match[2]), int(match[3])
    if match[1] == b"4":
        return match.end() + (width + 7) // 8 * height
    samples = width * height * (3 if match[1] == b"6" else 1)
    return match.end() + samples * (1 if int(match[4]) < 256 else 2)


def _jpeg2000_end(window: _Window) -> int | None:
    for _, box in zip(range(_MOST_SEGMENTS), walk_boxes(window.at), strict=False):
        if box.length < _LEAST_BOX_BYTES:
            return None
        if box.kind == b"jp2c":
            return box.start + box.length
    return None


def _tiff_end(window: _Window) -> int | None:
    """The end of the directory and data of a file's first page; None if it cannot be determined."""
    directory = first_directory(window.at)
    if directory is None or not len(directory.entries):
        return None
    sizes = directory.sizes
    outside = sizes > directory.value_bytes
    end = (directory.entries["value"][outside] + sizes[outside]).max(initial=directory.end)

    def values(*tags: int) -> npt.NDArray[np.float64]:
        return np.concatenate([_unsigned(directory, tag, window) for tag in tags])

    offsets, counts = values(STRIP_OFFSETS, TILE_OFFSETS), values(STRIP_BYTES, TILE_BYTES)
    compression, width, height, samples = (
        next(iter(values(tag)), 1.0) for tag in (COMPRESSION, WIDTH, HEIGHT, SAMPLES_PER_PIXEL)
    )
    if not len(offsets) or len(offsets) != len(counts) or compression == _OLD_JPEG:
        return None
    if compression == UNCOMPRESSED and counts.sum() < width * height * samples:  # decoders ignore such counts
        return None
    return int(max(end, (offsets + counts).max()))


def _unsigned(directory: Directory, tag: int, window: _Window) -> npt.NDArray[np.float64]:
    """(values,) float64, so that sums cannot overflow; (0,) if no entry has the tag.

    Raises:
        ValueError: If the values cannot be read, or are no unsigned numbers.
    """
    values = directory.read(tag, window.at, _MOST_PIECES)
    if directory.has(tag) and (not len(values) or values.dtype.kind != "u"):
        raise ValueError(f"tag {tag} holds no unsigned numbers")
    return values.astype(np.float64)


_END_FINDERS: dict[bytes, Callable[[_Window], int | None]] = {
    b"\xff\xd8": _jpeg_end,
    b"\x89PNG": _png_end,
    b"BM": _bmp_end,
    b"RIFF": _webp_end,
    b"P4": _pnm_end,
    b"P5": _pnm_end,
    b"P6": _pnm_end,
    b"\0\0\0\x0cjP": _jpeg2000_end,
    b"II*\0": _tiff_end,
    b"MM\0*": _tiff_end,
    b"II+\0": _tiff_end,
}
"""Functions that return the offset of an image's end, or None if it is not known, by the first bytes of the format."""
