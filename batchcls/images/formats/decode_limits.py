"""What makes decoding an image endless work, told from its bytes and by no clock: a file has one row everywhere."""

import re
import struct
from collections.abc import Callable
from typing import Literal

import numpy as np
from PIL import ImageFile

MOST_CHUNKS = 1_000_000
"""Largest number of chunks of a PNG or WebP, or of boxes of a JPEG 2000. Each takes some microseconds to walk over, and
libwebp keeps a record of every one."""
_MOST_SEGMENTS, _MOST_FILL_BYTES = 100_000, 1_000_000
"""Largest number of segments of a JPEG before its first scan, and of fill bytes, which Pillow skips one by one."""
_FILL = re.compile(rb"[\xff\0]*")
_MOST_PIECES = 1_000_000
"""Largest number of strips or tiles of an uncompressed TIFF; Pillow takes some microseconds for each."""
_MOST_TAG_BYTES = 256 << 20
"""Largest size of all tags of a TIFF together: they may name the same bytes again and again."""
_PIECES = (273, 324)
"""TIFF tags that hold the offsets of strips, and of tiles."""
_TYPE_BYTES = np.array([1, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 1, 1, 8, 8, 8])
"""Size in bytes of each TIFF value type, by its number; unknown types count as bytes."""
_MOST_TAGS = 1 << 16
_COMPRESSION = 259
_MOST_SAMPLES = 20_000_000
_MOST_COMMENTS = 100_000
"""Largest number of comments of a plain-text PNM; Pillow copies up to a megabyte for each."""
_MOST_RLE_WORK = 150_000_000
"""Largest work of a run-length encoded BMP: its pixels, and twice its bytes."""
_WRITTEN_IN_PYTHON = "Pillow would take minutes to decode it; convert it to PNG"

Pread = Callable[[int, int], bytes]
"""Bytes of a file, from an offset on, so many; fewer only where it ends."""
Directory = np.ndarray[tuple[int], np.dtype[np.void]]
"""Entries: ``tag``, ``type``, ``count``, ``value``."""


def before_opening(format_: str, data: bytes) -> str:
    """Why not even the header should be read by Pillow; empty if it may be."""
    work = {"PNG": _of_png, "JPEG": _of_jpeg, "JPEG2000": _of_jpeg2000, "TIFF": _of_tiff, "WEBP": _of_webp}.get(format_)
    return work(data) if work else ""


def of_opened(image: ImageFile.ImageFile, data: bytes) -> str:
    """Why an image that Pillow has opened should not be decoded: decoders that are written in Python are slow."""
    codec = image.tile[0].codec_name if image.tile else ""
    samples = image.width * image.height * len(image.getbands())
    if codec in ("ppm", "ppm_plain") and samples > _MOST_SAMPLES:
        kind = "text" if codec == "ppm_plain" else "other ranges than 0 to 255"
        return (
            f"it is a PNM of {kind} with {samples:,} numbers, and the limit is {_MOST_SAMPLES:,}: {_WRITTEN_IN_PYTHON}"
        )
    if codec == "ppm_plain" and (comments := data.count(b"#")) > _MOST_COMMENTS:
        return f"it is a PNM of text with {comments:,} comments: {_WRITTEN_IN_PYTHON}"
    if codec == "bmp_rle" and (work := samples + 2 * len(data)) > _MOST_RLE_WORK:
        return (
            f"it is a BMP in runs, {work:,} pixels and bytes, and the limit is {_MOST_RLE_WORK:,}: {_WRITTEN_IN_PYTHON}"
        )
    return ""


def _of_png(data: bytes) -> str:
    position = 8
    for _ in range(MOST_CHUNKS):
        head = data[position : position + 8]
        if len(head) < 8 or head[4:] == b"IEND":
            return ""
        position += 12 + int.from_bytes(head[:4], "big")
    return f"it has more than {MOST_CHUNKS:,} chunks"


def _of_webp(data: bytes) -> str:
    position, end = 12, 8 + int.from_bytes(data[4:8], "little")
    for _ in range(MOST_CHUNKS):
        head = data[position : position + 8]
        if len(head) < 8 or position >= end:  # what follows is not read
            return ""
        length = int.from_bytes(head[4:], "little")
        position += 8 + length + length % 2
    return f"it has more than {MOST_CHUNKS:,} chunks"


def _of_jpeg2000(data: bytes) -> str:
    position = 0
    for _ in range(MOST_CHUNKS):
        head = data[position : position + 16]
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if len(head) < 8 or length == 0 or kind == b"jp2c":  # it reaches to the end, or holds the image
            return ""
        start = 8
        if length == 1:
            start, length = 16, int.from_bytes(head[8:], "big")
        position += start if kind == b"jp2h" else max(start, length)  # that one holds others
    return f"it has more than {MOST_CHUNKS:,} boxes"


def _of_jpeg(data: bytes) -> str:
    position, fill = 2, 0
    for _ in range(_MOST_SEGMENTS):
        marker = _FILL.match(data, position, position + _MOST_FILL_BYTES)
        end = marker.end() if marker else position
        fill += end - position
        if fill > _MOST_FILL_BYTES:
            return f"it has more than {_MOST_FILL_BYTES:,} bytes that say nothing"
        if end == position or data[end : end + 1] in (b"\xda", b""):  # its first scan, or what Pillow refuses by itself
            return ""
        position = end + 1 + int.from_bytes(data[end + 1 : end + 3], "big")
    return f"it has more than {_MOST_SEGMENTS:,} segments before its first scan"


def _of_tiff(data: bytes) -> str:
    tags = first_directory(lambda offset, length: data[offset : offset + length])
    if tags is None:
        return ""
    counts = tags["count"].astype(np.float64)  # which cannot overflow
    pieces = counts[np.isin(tags["tag"], _PIECES)].max(initial=0)
    if pieces > _MOST_PIECES and _short(tags, _COMPRESSION, default=1) == 1:
        return f"its pixels are stored in {pieces:,.0f} pieces, and the limit is {_MOST_PIECES:,}"
    sizes = counts * _TYPE_BYTES[np.minimum(tags["type"], len(_TYPE_BYTES) - 1)]
    total = np.minimum(sizes, len(data)).sum()
    if total > _MOST_TAG_BYTES:
        return f"its tags take {total:,.0f} bytes, and the limit is {_MOST_TAG_BYTES:,}"
    return ""


def _short(tags: Directory, tag: int, default: int) -> int:
    """The value of a tag that is one number of 16 bits; it stands first in its field, whatever the byte order."""
    for entry in tags[tags["tag"] == tag]:
        order: Literal["big", "little"] = "big" if tags.dtype["tag"].str.startswith(">") else "little"
        return int.from_bytes(entry["value"].tobytes()[:2], order)
    return default


def first_directory(pread: Pread) -> Directory | None:
    """The entries of a TIFF's first directory, as far as they are there; None if it has none.

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
    entries = pread(start + struct.calcsize(order + length), min(count, _MOST_TAGS) * entry.itemsize)
    return np.frombuffer(entries, entry, len(entries) // entry.itemsize)
