"""Peak memory of decoding an image, in bytes, computed from its header for each decoding library."""

from PIL import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from batchcls.images.formats.tiff import COMPRESSION, SAMPLES_PER_PIXEL, TILE_LENGTH, TILE_WIDTH, UNCOMPRESSED

_RGB = 3
"""Bytes per pixel that `batchcls.images.formats.inspection.decode` returns."""
_WIDE = 4
"""Bytes per pixel of Pillow's images of two channels and more; an image of one channel takes one byte."""
_ONE_CHANNEL = ("1", "L", "P")
_OVERHEAD_BYTES = 8 << 20
"""Bytes for rows being decoded, tables and texts."""
_ROW_BYTES = 12
"""Bytes per pixel of a row: the row being decoded, and the one before, as they were stored."""
_COEFFICIENT_BYTES, _BLOCK = 2, 8
_WEBP_BYTES = 18
"""Bytes per pixel of a WebP: libwebp decodes to one canvas and keeps another, from which Pillow copies."""
_J2K_BYTES = 5.25
"""Bytes per sample of a tile: OpenJPEG computes in 32 bits, and Pillow takes samples in 8."""
_JPEG_STRIP_BYTES = 8
"""Bytes per pixel of a strip stored as JPEG: coefficients of a progressive one, or what libtiff turns into RGBA."""
_JPEG_COMPRESSIONS = (6, 7)
_ORIENTATION, _ROWS_PER_STRIP = 274, 278


def of_jpeg(width: int, height: int, components: int, coefficients: float) -> int:
    """Bytes that decoding a JPEG takes.

    Args:
        coefficients: Coefficients per pixel that are kept until the last scan; 0 where there is one scan.
    """
    kept = coefficients * _COEFFICIENT_BYTES * (width + 8 * _BLOCK) * (height + 8 * _BLOCK)
    return _total(width, height, 1 if components == 1 else _WIDE, kept)


def of_rgb(width: int, height: int) -> int:
    """Bytes that decoding an image takes whose pixels are stored uncompressed."""
    return _total(width, height, _WIDE, 0)


def of_webp(width: int, height: int) -> int:
    """Bytes that decoding a WebP takes."""
    return _OVERHEAD_BYTES + width * height * _WEBP_BYTES


def of_jpeg2000(image: ImageFile.ImageFile, components: int, tile_pixels: int) -> int:
    """Bytes that decoding a JPEG 2000 takes; OpenJPEG keeps a tile until the image is closed, but not an only tile."""
    pixels = image.width * image.height
    tile = min(pixels, tile_pixels) * components * _J2K_BYTES
    kept = tile if tile_pixels < pixels else 0.0
    return _total(image.width, image.height, _pixel_bytes(image), tile) + int(kept)


def of_others(image: ImageFile.ImageFile) -> int:
    """Bytes that decoding an image of another format takes.

    Args:
        image: An image that Pillow has opened, and not loaded.
    """
    pixels = image.width * image.height
    working = 0
    if isinstance(image, TiffImageFile):
        working = _of_tiff(image)
    elif image.tile and image.tile[0].codec_name in ("ppm", "ppm_plain", "bmp_rle"):  # codecs in Python code
        working = 3 * pixels * len(image.getbands())
    return _total(image.width, image.height, _pixel_bytes(image), working)


def _of_tiff(image: TiffImageFile) -> int:
    """Bytes that libtiff takes for a strip or a tile, or Pillow for turning the image as its orientation says."""
    tags = image.tag_v2
    width, rows = image.width, tags.get(_ROWS_PER_STRIP, image.height)
    if TILE_WIDTH in tags:
        width, rows = tags[TILE_WIDTH], tags.get(TILE_LENGTH, 1)
    elif not isinstance(rows, int) or not 0 < rows < image.height:
        rows = image.height
    compression = tags.get(COMPRESSION, UNCOMPRESSED)
    samples = tags.get(SAMPLES_PER_PIXEL, 1)
    a_pixel = 1 + (samples if isinstance(samples, int) else len(image.getbands()))
    a_pixel += _JPEG_STRIP_BYTES if compression in _JPEG_COMPRESSIONS else 0
    strip = 0 if compression == UNCOMPRESSED and TILE_WIDTH not in tags else width * rows * a_pixel
    turned = 0 if tags.get(_ORIENTATION, 1) == 1 else image.width * image.height * _pixel_bytes(image)
    return max(strip, turned)


def _pixel_bytes(image: ImageFile.ImageFile) -> int:
    """Bytes per pixel of Pillow's image."""
    return 1 if image.mode in _ONE_CHANNEL else _WIDE


def _total(width: int, height: int, stored: int, working: float) -> int:
    """All bytes together; ``working`` bytes are given back before the pixels are copied to the result."""
    pixels = width * height
    return _OVERHEAD_BYTES + int(width * _ROW_BYTES + pixels * stored + max(pixels * _RGB, working))
