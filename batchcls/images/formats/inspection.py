"""Which image files are used, and the pixels that Pillow makes of them: one answer for training and for running."""

import io
import struct
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFile
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile

from batchcls.images.formats import decode_limits, memory_costs
from batchcls.images.formats.jpeg_markers import JpegHeader, jpeg_header
from batchcls.records import FailureKind, Pixels

_LARGEST_PIXEL_BYTES = 8
"""Four channels of 16 bits: what an uncompressed file can hold for each pixel."""
_OVERHEAD_BYTES = 16 << 20
"""Room for headers, color profiles and thumbnails."""

_FORMATS = {
    b"\xff\xd8": "JPEG",
    b"\x89PNG": "PNG",
    b"BM": "BMP",
    b"\x28\0\0\0": "DIB",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"RIFF": "WEBP",
    b"\0\0\0\x0cjP": "JPEG2000",
    b"\xff\x4f\xff\x51": "JPEG2000",
    **{b"P%d" % kind: "PPM" for kind in range(1, 7)},
}
"""By a file's first bytes, the one format that Pillow is asked for. PostScript, which it has others run, is not one."""
_UNREADABLE = {
    b"GIF8": "GIF",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL": "JPEG XL",
    b"MM\0+": "BigTIFF of big-endian numbers",
}
_MODES = frozenset(("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB"))
"""Pillow's modes of at most 8 bits a channel that it turns into RGB."""
_TOO_DEEP = "its colours are not stored in 8 bits each; convert it to 8-bit RGB"
"""Decoders scale 16 bits to 8 in ways that differ by up to 254 of 255: such a probability would mean nothing."""
_OTHER_TIFF = "a TIFF of this layout, with compression {}, is not decoded; convert it to 8-bit RGB"
_WHOLE_SLIDE = "whole slides are not decoded; cut them into tiles"
_SLIDE_ENDINGS = (".svs", ".ndpi")
_NDPI_FORMAT_FLAG = 65420
_IMAGE_WIDTH, _BITS_PER_SAMPLE, _COMPRESSION, _IMAGE_DESCRIPTION = 256, 258, 259, 270
_TILE_WIDTH, _TILE_LENGTH = 322, 323
_WEBP = 50001
"""A compression of TIFF that Pillow knows by name, and is built without."""
_MOST_TILE_PIXELS = 1 << 26
"""A small image can be stored as a part of a huge tile, which takes memory whole."""

_SMALL_PIXELS, _BAND_PIXELS = 1 << 20, 1 << 18
_MOST_SCANS = 1000
"""Thousands of scans of a few bytes each make libjpeg work for hours. The limit leaves room for what looks like one in
a color profile, or in a film that a camera has appended. Source: https://cure53.de/pentest-report_libjpeg-turbo.pdf."""
_USUAL_SCANS = 30
_MOST_SCANNED_PIXELS = 6_000_000_000
"""Of all scans together, unless there are few: ten seconds of work, counted so that a file has one row everywhere."""
_USUAL_BMP = struct.pack("<IHI", 40, 24, 0)
"""Bytes of the header, bits a pixel, and no compression."""
_PNM_HEADER_BYTES = 1 << 16
"""Pillow reads it byte by byte, comments and all."""
_END_MARKS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}


class RefusedError(ValueError):
    """A file that no decoder need try; carries what its `batchcls.records.Failure` says."""

    def __init__(self, kind: FailureKind, reason: str, width: int | None = None, height: int | None = None) -> None:
        super().__init__(f"{kind}: {reason}")
        self.details = (kind, reason, width, height)


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of itself before any pixel is decoded."""

    format: str
    """Pillow's name for it."""
    width: int
    height: int
    """Of the image as decoded: a TIFF is turned by its Orientation tag, as Pillow does; other formats are not."""
    suspect: bool
    """The mark that its format ends with is missing, so decoding it is likely to fail."""
    plain_jpeg: bool
    """A whole JPEG of the usual kinds, of which libjpeg-turbo's own interface gives Pillow's pixels."""
    decode_bytes: int
    """The most that `decode`, or a decoder instead of it, takes in memory; its pixels included, the file not."""


def largest_bytes(max_pixels: int) -> int:
    """The size of the largest file that can hold ``max_pixels``."""
    return max_pixels * _LARGEST_PIXEL_BYTES + _OVERHEAD_BYTES


def examine(name: str, data: bytes, max_pixels: int) -> Header:
    """The header of a file called ``name``.

    Raises:
        RefusedError: If it is no image that Pillow decodes to 8 bits a channel without rounding off more.
    """
    format_ = format_of(name, data)
    if reason := decode_limits.before_opening(format_, data):
        raise RefusedError("corrupt", reason)
    jpeg = jpeg_header(data) if format_ == "JPEG" else None
    size = (jpeg.width, jpeg.height) if jpeg and jpeg.ordinary and jpeg.plain else _size_of_others(format_, data)
    if size:
        (width, height), reason, cost = size, "", _usual_cost(format_, *size, jpeg)
    else:
        (width, height), reason, cost = _by_pillow(format_, data, jpeg)
    _check_size(width, height, max_pixels)
    if reason:
        raise RefusedError("unsupported", reason, width, height)
    if jpeg and jpeg.scans > _MOST_SCANS:
        told = f"it has {jpeg.scans:,} scans; a sound progressive JPEG has about ten"
        raise RefusedError("corrupt", told, width, height)
    if jpeg and jpeg.scans > _USUAL_SCANS and jpeg.scans * width * height > _MOST_SCANNED_PIXELS:
        told = (
            f"its {jpeg.scans:,} scans of {width}x{height} pixels are more than {_MOST_SCANNED_PIXELS:,} pixels to go "
            "over; a sound progressive JPEG has about ten scans"
        )
        raise RefusedError("corrupt", told, width, height)
    mark = _END_MARKS.get(format_)
    # In what follows an image there can be anything. Of a JPEG, of which it cannot be told, its own segments say.
    ended = mark is None or mark in data[-64:] or (jpeg.end is not None if jpeg else data.rfind(mark) >= 0)
    return Header(format_, width, height, not ended, jpeg is not None and jpeg.plain, cost)


def decode(data: bytes, header: Header) -> Pixels:
    """(H, W, 3) uint8 RGB: the pixels that training sees; raises anything if Pillow cannot decode them."""
    with _opened(header.format, data) as image:
        image.load()
        if image.size != (header.width, header.height):
            raise ValueError("its headers contradict one another")
        return _rgb(image)


def _rgb(image: Image.Image) -> Pixels:
    """(H, W, 3) uint8; of a large image, no other copy is made as a whole."""
    width, height = image.size
    if width * height <= _SMALL_PIXELS:
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    columns = min(width, _BAND_PIXELS)
    rows = max(1, _BAND_PIXELS // columns)
    pixels = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            right, bottom = min(width, left + columns), min(height, top + rows)
            part = image.crop((left, top, right, bottom))
            pixels[top:bottom, left:right] = np.asarray(part if part.mode == "RGB" else part.convert("RGB"))
    return pixels


def _opened(format_: str, data: bytes) -> ImageFile.ImageFile:
    """The image, of which Pillow has read no more than the header."""
    Image.MAX_IMAGE_PIXELS = None  # it would warn, and raise what is no ValueError; `examine` checks the size
    return Image.open(io.BytesIO(data), formats=(format_,))


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width <= 0 or height <= 0:
        raise RefusedError("corrupt", f"its header says {width}x{height} pixels")
    if width * height > max_pixels:
        reason = f"{width}x{height} is {width * height:,} pixels; the limit is {max_pixels:,} (--max-pixels)"
        raise RefusedError("too large", reason, *(side if side < 2**31 else None for side in (width, height)))


def format_of(name: str, data: bytes) -> str:
    """Pillow's name for what a file called ``name`` is, by its first 16 bytes.

    Raises:
        RefusedError: If it is nothing that is decoded.
    """
    if name.lower().endswith(_SLIDE_ENDINGS):
        raise RefusedError("unsupported", _WHOLE_SLIDE)
    for magic, name in _UNREADABLE.items():
        if data.startswith(magic):
            raise RefusedError("unsupported", f"{name} is not decoded; convert it to PNG")
    if data[4:8] == b"ftyp":
        raise RefusedError("unsupported", "HEIC and AVIF are not decoded; convert it to PNG")
    format_ = next((name for magic, name in _FORMATS.items() if data.startswith(magic)), None)
    if format_ is None or (format_ == "WEBP" and data[8:12] != b"WEBP"):
        raise RefusedError("not an image", f"it begins with {data[:8]!r}")
    return format_


def _size_of_others(format_: str, data: bytes) -> tuple[int, int] | None:
    """Width and height where it takes no more than a look; None where Pillow has to read the header."""
    if format_ == "WEBP":  # Pillow would take memory for the image
        return _webp_size(data)
    if format_ == "BMP" and data[14:18] + data[28:34] == _USUAL_BMP:
        width, height = struct.unpack_from("<ii", data, 18)
        return (width, height) if width > 0 and height > 0 else None
    return None


def _usual_cost(format_: str, width: int, height: int, jpeg: JpegHeader | None) -> int:
    if format_ == "WEBP":
        return memory_costs.of_webp(width, height)
    if jpeg:
        return memory_costs.of_jpeg(width, height, jpeg.components, jpeg.coefficients)
    return memory_costs.of_rgb(width, height)


def _by_pillow(format_: str, data: bytes, jpeg: JpegHeader | None) -> tuple[tuple[int, int], str, int]:
    """Width and height; why the image is not decoded all the same, empty if it is; and what decoding it takes."""
    try:
        image = _opened(format_, data[:_PNM_HEADER_BYTES] if format_ == "PPM" else data)
        return image.size, _unsupported(image, data), _cost(image, data, jpeg)
    except MemoryError:
        raise
    except Exception as error:  # whatever a plugin raises, it is of this one file
        reason = _unknown_tiff(data) if format_ == "TIFF" else ""
        if jpeg and jpeg.depth > 8:
            reason = _TOO_DEEP
        if reason:
            raise RefusedError("unsupported", reason) from error
        raise RefusedError("corrupt", f"it begins as {format_}, but cannot be read as such") from error


def _cost(image: ImageFile.ImageFile, data: bytes, jpeg: JpegHeader | None) -> int:
    if jpeg:
        channels = len(image.getbands())
        unknown = float(channels)  # its frame is not where it should be
        return memory_costs.of_jpeg(*image.size, channels, jpeg.coefficients if jpeg.components else unknown)
    if image.format == "JPEG2000":
        size = _j2k_size(data)
        return memory_costs.of_jpeg2000(image, len(size.depths), size.tile_pixels)
    return memory_costs.of_others(image)


def _unsupported(image: ImageFile.ImageFile, data: bytes) -> str:
    """Why an image that Pillow opens is not decoded all the same; empty if it is."""
    arguments = image.tile[0].args if image.tile else ()
    if isinstance(image, TiffImageFile):
        if _is_whole_slide(image.tag_v2):
            return _WHOLE_SLIDE
        if image.tag_v2.get(_COMPRESSION) == _WEBP:
            return _OTHER_TIFF.format(_WEBP)
        tile = [image.tag_v2.get(tag, 1) for tag in (_TILE_WIDTH, _TILE_LENGTH)]
        if not all(isinstance(side, int) for side in tile):  # a text, so many times, would fill the memory
            raise ValueError("its tiles have no size")
        if tile[0] * tile[1] > _MOST_TILE_PIXELS:
            return f"its tiles have more than {_MOST_TILE_PIXELS:,} pixels; convert it to PNG"
    # Of a damaged fax, a TIFF of one bit, decoders give away what lay in memory before.
    fax = image.format == "TIFF" and image.mode == "1"
    deep = image.mode[0] in "IF" or (image.format == "JPEG2000" and max(_j2k_size(data).depths, default=0) > 8)
    deep |= image.format in ("PNG", "TIFF") and ";16" in str(image.tile)
    if image.format == "PPM" and isinstance(arguments, tuple):
        deep |= int(arguments[-1]) > 255
    if fax or deep:
        return _TOO_DEEP
    if image.mode not in _MODES:
        return f"{image.format} of mode {image.mode} is not decoded; convert it to 8-bit RGB"
    return decode_limits.of_opened(image, data)


def _is_whole_slide(tags: ImageFileDirectory_v2) -> bool:
    """Whether a scanner has left its mark, whatever the file is called now."""
    return _NDPI_FORMAT_FLAG in tags or str(tags.get(_IMAGE_DESCRIPTION, "")).startswith("Aperio")


def _unknown_tiff(data: bytes) -> str:
    """Why Pillow does not open a TIFF that has a first page; empty if it has none."""
    try:
        tags = ImageFileDirectory_v2(data[: 16 if data[2] == 43 else 8])  # BigTIFF, or not
        stream = io.BytesIO(data)
        stream.seek(tags.next)
        tags.load(stream)
        compression, is_page = tags.get(_COMPRESSION, 1), _IMAGE_WIDTH in tags
        deep = max(tags.get(_BITS_PER_SAMPLE, (1,))) > 8
    except Exception:  # noqa: BLE001  # it was not opened, and why is all that is asked
        return ""
    if not is_page:
        return ""
    if _is_whole_slide(tags):
        return _WHOLE_SLIDE
    if deep:
        return _TOO_DEEP
    return _OTHER_TIFF.format(compression)


def _webp_size(data: bytes) -> tuple[int, int]:
    """Source: https://developers.google.com/speed/webp/docs/riff_container."""
    try:
        if data[12:16] == b"VP8 ":
            width, height = struct.unpack_from("<HH", data, 26)
            return width & 0x3FFF, height & 0x3FFF
        if data[12:16] == b"VP8L":
            (bits,) = struct.unpack_from("<I", data, 21)
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        if data[12:16] == b"VP8X":
            width, height = (int.from_bytes(data[start : start + 3], "little") + 1 for start in (24, 27))
            return width, height
    except struct.error:
        pass
    raise RefusedError("corrupt", "it begins as WEBP, but cannot be read as such")


@dataclass(frozen=True, slots=True)
class _J2kSize:
    """What a JPEG 2000's codestream says of its size."""

    tile_pixels: int
    depths: tuple[int, ...]
    """Bits of each component."""


def _j2k_size(data: bytes) -> _J2kSize:
    """Source: ITU-T T.800, A.5.1 (SIZ) and I.4 (boxes)."""
    start = 0
    while data[start : start + 4] != b"\xff\x4f\xff\x51":  # SOC, then SIZ
        length, kind = struct.unpack_from(">I4s", data, start)
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, start + 8)
            start += 8 if kind == b"jp2c" else 0
        if length < 8 and kind != b"jp2c":
            raise ValueError(f"a box of {length} bytes")
        start += 8 if kind == b"jp2c" else length
    tile_width, tile_height = struct.unpack_from(">II", data, start + 24)
    (components,) = struct.unpack_from(">H", data, start + 40)
    depths = data[start + 42 : start + 42 + 3 * components : 3]
    return _J2kSize(tile_width * tile_height, tuple(1 + (depth & 0x7F) for depth in depths))
