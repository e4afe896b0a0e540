"""Refuse images that would take minutes to decode; judged by their bytes, so that every run refuses the same ones."""

import re

import numpy as np
from PIL import ImageFile

from batchcls.images.formats.jpeg2000 import walk_boxes
from batchcls.images.formats.tiff import COMPRESSION, STRIP_OFFSETS, TILE_OFFSETS, UNCOMPRESSED, first_directory

MOST_CHUNKS = 1_000_000
"""Largest number of chunks of a PNG or WebP, or of boxes of a JPEG 2000. Each takes some microseconds to walk over, and
libwebp keeps a record of every one."""
_MOST_SEGMENTS, _MOST_FILL_BYTES = 100_000, 1_000_000
"""Largest number of segments of a JPEG before its first scan, and of fill bytes, which Pillow skips one by one."""
_FILL = re.compile(rb"[\xff\0]*")
"""Fill bytes between segments."""
_MOST_PIECES = 1_000_000
"""Largest number of strips or tiles of an uncompressed TIFF; Pillow takes some microseconds for each."""
_MOST_TAG_BYTES = 256 << 20
"""Largest size of all tags of a TIFF together, since many tags may refer to the same bytes."""
_PIECES = (STRIP_OFFSETS, TILE_OFFSETS)
"""Tags that have a value for each strip or tile."""
_MOST_SAMPLES = 20_000_000
"""Largest number of samples of a PNM that is decoded in Python."""
_MOST_COMMENTS = 100_000
"""Largest number of comments of a plain-text PNM; Pillow copies up to a megabyte for each."""
_MOST_RLE_WORK = 150_000_000
"""Largest work of a run-length encoded BMP: its pixels, and twice its bytes."""
_SLOW_IN_PILLOW = "Pillow would take minutes to decode it; convert it to PNG"


def before_opening(format_: str, data: bytes) -> str:
    """The reason why Pillow must not read even the header of a file; empty if there is none."""
    check = {
        "PNG": _check_png,
        "JPEG": _check_jpeg,
        "JPEG2000": _check_jpeg2000,
        "TIFF": _check_tiff,
        "WEBP": _check_webp,
    }.get(format_)
    return check(data) if check else ""


def of_opened(image: ImageFile.ImageFile, data: bytes) -> str:
    """The reason why an image that Pillow has opened must not be decoded; empty if there is none.

    Only images are refused that Pillow decodes in Python code, which is slow.
    """
    codec = image.tile[0].codec_name if image.tile else ""
    samples = image.width * image.height * len(image.getbands())
    if codec in ("ppm", "ppm_plain") and samples > _MOST_SAMPLES:
        kind = "text" if codec == "ppm_plain" else "other ranges than 0 to 255"
        return f"it is a PNM of {kind} with {samples:,} numbers, and the limit is {_MOST_SAMPLES:,}: {_SLOW_IN_PILLOW}"
    if codec == "ppm_plain" and (comments := data.count(b"#")) > _MOST_COMMENTS:
        return f"it is a PNM of text with {comments:,} comments: {_SLOW_IN_PILLOW}"
    if codec == "bmp_rle" and (work := samples + 2 * len(data)) > _MOST_RLE_WORK:
        return f"it is a BMP in runs, {work:,} pixels and bytes, and the limit is {_MOST_RLE_WORK:,}: {_SLOW_IN_PILLOW}"
    return ""


def _check_png(data: bytes) -> str:
    position = 8
    for _ in range(MOST_CHUNKS):
        head = data[position : position + 8]
        if len(head) < 8 or head[4:] == b"IEND":
            return ""
        position += 12 + int.from_bytes(head[:4], "big")
    return f"it has more than {MOST_CHUNKS:,} chunks"


def _check_webp(data: bytes) -> str:
    position, end = 12, 8 + int.from_bytes(data[4:8], "little")
    for _ in range(MOST_CHUNKS):
        head = data[position : position + 8]
        if len(head) < 8 or position >= end:  # bytes after the end are not read
            return ""
        length = int.from_bytes(head[4:], "little")
        position += 8 + length + length % 2
    return f"it has more than {MOST_CHUNKS:,} chunks"


def _check_jpeg2000(data: bytes) -> str:
    boxes = walk_boxes(lambda offset, length: data[offset : offset + length], entered=b"jp2h")
    for number, box in enumerate(boxes):
        if number == MOST_CHUNKS:
            return f"it has more than {MOST_CHUNKS:,} boxes"
        if box.kind == b"jp2c":
            return ""
    return ""


def _check_jpeg(data: bytes) -> str:
    position, fill = 2, 0
    for _ in range(_MOST_SEGMENTS):
        marker = _FILL.match(data, position, position + _MOST_FILL_BYTES)
        end = marker.end() if marker else position
        fill += end - position
        if fill > _MOST_FILL_BYTES:
            return f"it has more than {_MOST_FILL_BYTES:,} bytes that say nothing"
        if end == position or data[end : end + 1] in (b"\xda", b""):  # first scan, or damage that Pillow refuses
            return ""
        position = end + 1 + int.from_bytes(data[end + 1 : end + 3], "big")
    return f"it has more than {_MOST_SEGMENTS:,} segments before its first scan"


def _check_tiff(data: bytes) -> str:
    directory = first_directory(lambda offset, length: data[offset : offset + length])
    if directory is None:
        return ""
    entries = directory.entries
    pieces = entries["count"][np.isin(entries["tag"], _PIECES)].max(initial=0)
    if pieces > _MOST_PIECES and directory.short(COMPRESSION, default=UNCOMPRESSED) == UNCOMPRESSED:
        return f"its pixels are stored in {pieces:,} pieces, and the limit is {_MOST_PIECES:,}"
    total = np.minimum(directory.sizes, len(data)).sum()
    if total > _MOST_TAG_BYTES:
        return f"its tags take {total:,.0f} bytes, and the limit is {_MOST_TAG_BYTES:,}"
    return ""
