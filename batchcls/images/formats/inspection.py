"""Headers of image files, and the decision whether an image is used, the same in training and in runs."""

import struct
from dataclasses import dataclass

from PIL import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from batchcls.images.formats import decode_limits, memory_costs, tiff
from batchcls.images.formats.jpeg2000 import j2k_size
from batchcls.images.formats.jpeg_markers import JpegHeader, jpeg_header
from batchcls.images.formats.pixels import check_size_px, open_image, rgb_pixels
from batchcls.images.formats.refusal import RefusedError
from batchcls.images.formats.signatures import WHOLE_SLIDE, format_of
from batchcls.records import Pixels

MODES = frozenset(("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB"))
"""Pillow's modes of at most 8 bits per channel that Pillow converts to RGB."""
TOO_DEEP = "its colors are not stored in 8 bits each; convert it to 8-bit RGB"
"""Reason for refusing 16-bit images: decoders scale them to 8 bits in ways that differ by up to 254 of 255."""
_OTHER_TIFF = "a TIFF of this layout, with compression {}, is not decoded; convert it to 8-bit RGB"
_WEBP = 50001
"""Number of a TIFF compression that Pillow knows, but that its builds do not support."""
_MOST_VALUES = 1 << 16
"""Largest number of values that are read of a tag."""
_MOST_TILE_PIXELS = 1 << 26
"""Largest number of pixels of a tile: a small image can be stored in a huge tile, which is decoded as a whole."""

_MOST_SCANS = 1000
"""Largest number of scans: thousands of a few bytes each make libjpeg work for hours. The limit leaves room for what
looks like a scan in a color profile, or in a film that a camera has appended. Source: https://cure53.de/pentest-report_libjpeg-turbo.pdf."""
_USUAL_SCANS = 30
"""Number of scans up to which the pixels of the scans are not counted."""
_MOST_SCANNED_PIXELS = 6_000_000_000
"""Largest number of pixels of all scans together: ten seconds of work, counted so that every run refuses the same."""
_USUAL_BMP = struct.pack("<IHI", 40, 24, 0)
"""Header size, bits per pixel and compression (none) of the usual BMPs."""
_PNM_HEADER_BYTES = 1 << 16
"""Number of bytes within which the header of a PNM must end, since Pillow reads headers and comments byte by byte."""
_END_MARKS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
"""Bytes that an image ends with, by its format."""


@dataclass(frozen=True, slots=True)
class Header:
    """Properties of an image, read before any pixel is decoded."""

    format: str
    """Pillow's name for the format."""
    width: int
    """Width in pixels of the decoded image, after a TIFF has been turned by its Orientation tag, as Pillow does."""
    height: int
    """Height in pixels of the decoded image."""
    suspect: bool
    """Whether the format's end mark is missing, so that decoding is likely to fail."""
    plain_jpeg: bool
    """Whether the file is a complete JPEG of a usual kind, which libjpeg-turbo decodes to the same pixels as Pillow."""
    decode_bytes: int
    """Peak memory of decoding, by `decode` or another decoder, with the pixels and without the file itself."""


def examine(name: str, data: bytes, max_pixels: int) -> Header:
    """The header of an image that can be decoded.

    Args:
        name: Name of the file, which tells whole slides by their ending.
        data: Bytes of the file.
        max_pixels: Largest allowed number of pixels, width times height.

    Raises:
        RefusedError: If the file is no image, is too large or too costly, or has more than 8 bits per channel.
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
        excess = f"it has {jpeg.scans:,} scans; a sound progressive JPEG has about ten"
        raise RefusedError("corrupt", excess, width, height)
    if jpeg and jpeg.scans > _USUAL_SCANS and jpeg.scans * width * height > _MOST_SCANNED_PIXELS:
        excess = (
            f"its {jpeg.scans:,} scans of {width}x{height} pixels are more than {_MOST_SCANNED_PIXELS:,} pixels to go "
            "over; a sound progressive JPEG has about ten scans"
        )
        raise RefusedError("corrupt", excess, width, height)
    mark = _END_MARKS.get(format_)
    # Bytes after an image may contain the mark by chance; for a JPEG, the segments tell where the image ends.
    ended = mark is None or mark in data[-64:] or (jpeg.end is not None if jpeg else data.rfind(mark) >= 0)
    return Header(format_, width, height, not ended, jpeg is not None and jpeg.plain, cost)


def decode(data: bytes | memoryview, header: Header) -> Pixels:
    """(H, W, 3) uint8 RGB pixels, the same as in training; may raise any error if Pillow cannot decode the file."""
    with open_image(header.format, data) as image:
        image.load()
        check_size_px(image, header.width, header.height)
        return rgb_pixels(image)


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width <= 0 or height <= 0:
        raise RefusedError("corrupt", f"its header says {width}x{height} pixels")
    if width * height > max_pixels:
        reason = f"{width}x{height} is {width * height:,} pixels; the limit is {max_pixels:,} (--max-pixels)"
        raise RefusedError("too large", reason, *(side if side < 2**31 else None for side in (width, height)))


def _size_of_others(format_: str, data: bytes) -> tuple[int, int] | None:
    """Width and height in pixels if a few bytes of the file state them; None if Pillow has to read the header."""
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
    """Width and height, the reason why the image is not decoded (empty if there is none), and memory of decoding."""
    try:
        image = open_image(format_, data[:_PNM_HEADER_BYTES] if format_ == "PPM" else data)
        return image.size, _unsupported(image, data), _cost(image, data, jpeg)
    except MemoryError:
        raise
    except Exception as error:  # any error of a Pillow plugin concerns this one file
        reason = _unknown_tiff(data) if format_ == "TIFF" else ""
        if jpeg and jpeg.depth > 8:
            reason = TOO_DEEP
        if reason:
            raise RefusedError("unsupported", reason) from error
        raise RefusedError("corrupt", f"it begins as {format_}, but cannot be read as such") from error


def _cost(image: ImageFile.ImageFile, data: bytes, jpeg: JpegHeader | None) -> int:
    if jpeg:
        channels = len(image.getbands())
        unknown = float(channels)  # for a JPEG without a frame where one is expected
        return memory_costs.of_jpeg(*image.size, channels, jpeg.coefficients if jpeg.components else unknown)
    if image.format == "JPEG2000":
        size = j2k_size(data)
        return memory_costs.of_jpeg2000(image, len(size.depths), size.tile_pixels)
    return memory_costs.of_others(image)


def _unsupported(image: ImageFile.ImageFile, data: bytes) -> str:
    """The reason why an image that Pillow has opened is not decoded; empty if there is none."""
    arguments = image.tile[0].args if image.tile else ()
    if isinstance(image, TiffImageFile):
        tags = image.tag_v2
        if tiff.NDPI_FORMAT_FLAG in tags or str(tags.get(tiff.DESCRIPTION, "")).startswith("Aperio"):
            return WHOLE_SLIDE
        if tags.get(tiff.COMPRESSION) == _WEBP:
            return _OTHER_TIFF.format(_WEBP)
        tile = [tags.get(tag, 1) for tag in (tiff.TILE_WIDTH, tiff.TILE_LENGTH)]
        if not all(isinstance(side, int) for side in tile):  # a text times a number would be a huge text
            raise ValueError("its tiles have no size")
        if tile[0] * tile[1] > _MOST_TILE_PIXELS:
            return f"its tiles have more than {_MOST_TILE_PIXELS:,} pixels; convert it to PNG"
    # For a damaged fax (a TIFF with one bit per pixel), decoders return uninitialized memory.
    fax = image.format == "TIFF" and image.mode == "1"
    deep = image.mode[0] in "IF" or (image.format == "JPEG2000" and max(j2k_size(data).depths, default=0) > 8)
    deep |= image.format in ("PNG", "TIFF") and ";16" in str(image.tile)
    if image.format == "PPM" and isinstance(arguments, tuple):
        deep |= int(arguments[-1]) > 255
    if fax or deep:
        return TOO_DEEP
    if image.mode not in MODES:
        return f"{image.format} of mode {image.mode} is not decoded; convert it to 8-bit RGB"
    return decode_limits.of_opened(image, data)


def _unknown_tiff(data: bytes) -> str:
    """The reason why Pillow does not open a TIFF that has a first page; empty if the file has no page."""

    def pread(offset: int, length: int) -> bytes:
        return data[offset : offset + length]

    directory = tiff.first_directory(pread)
    if directory is None:
        return ""
    try:
        if not len(directory.read(tiff.WIDTH, pread, _MOST_VALUES)):
            return ""
        if directory.is_whole_slide(pread):
            return WHOLE_SLIDE
        depths = directory.read(tiff.BITS_PER_SAMPLE, pread, _MOST_VALUES)
        compression = directory.read(tiff.COMPRESSION, pread, _MOST_VALUES)
    except ValueError:
        return ""
    if "S" in (depths.dtype.kind, compression.dtype.kind):  # text, where numbers should be
        return ""
    if depths.max(initial=1) > 8:
        return TOO_DEEP
    return _OTHER_TIFF.format(next(iter(compression.tolist()), tiff.UNCOMPRESSED))


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height in pixels.

    Source: https://developers.google.com/speed/webp/docs/riff_container.
    """
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
