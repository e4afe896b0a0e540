"""What decoding an image takes in memory at most, told from its header, library by library."""

from PIL import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

_RGB = 3
"""Bytes a pixel of what `batchcls.images.formats.inspection.decode` returns."""
_WIDE = 4
"""Bytes a pixel of Pillow's images of two channels and more; of one channel it stores a byte."""
_ONE_CHANNEL = ("1", "L", "P")
_OVERHEAD_BYTES = 8 << 20
"""Rows on their way, tables, texts."""
_ROW_BYTES = 12
"""A pixel of a row: the row that is decoded, and the one before, as they were stored."""
_COEFFICIENT_BYTES, _BLOCK = 2, 8
_WEBP_BYTES = 18
"""A pixel: libwebp decodes to one canvas, keeps another, and Pillow copies what it takes from there."""
_J2K_BYTES = 5.25
"""A sample of a tile: OpenJPEG computes in 32 bits, and Pillow takes them in 8."""
_JPEG_STRIP_BYTES = 8
"""A pixel of a strip of JPEG: coefficients, where it is progressive, or what libtiff turns into RGBA."""
_JPEG_COMPRESSIONS = (6, 7)
_UNCOMPRESSED = 1
_COMPRESSION, _ORIENTATION, _SAMPLES, _ROWS_PER_STRIP = 259, 274, 277, 278
_TILE_WIDTH, _TILE_LENGTH = 322, 323


def of_jpeg(width: int, height: int, components: int, coefficients: float) -> int:
    """Bytes, where ``coefficients`` a pixel are kept until the last scan has been read; 0 where there is but one."""
    kept = coefficients * _COEFFICIENT_BYTES * (width + 8 * _BLOCK) * (height + 8 * _BLOCK)
    return _sum(width, height, 1 if components == 1 else _WIDE, kept)


def of_rgb(width: int, height: int) -> int:
    """Of pixels that are stored as they are."""
    return _sum(width, height, _WIDE, 0)


def of_webp(width: int, height: int) -> int:
    return _OVERHEAD_BYTES + width * height * _WEBP_BYTES


def of_jpeg2000(image: ImageFile.ImageFile, components: int, tile_pixels: int) -> int:
    """OpenJPEG keeps a tile until the image is closed, but not all of an image that is one tile."""
    pixels = image.width * image.height
    tile = min(pixels, tile_pixels) * components * _J2K_BYTES
    kept = tile if tile_pixels < pixels else 0.0
    return _sum(image.width, image.height, _stored(image), tile) + int(kept)


def of_others(image: ImageFile.ImageFile) -> int:
    """Of an image that Pillow has opened, and not loaded yet."""
    pixels = image.width * image.height
    working = 0
    if isinstance(image, TiffImageFile):
        working = _of_tiff(image)
    elif image.tile and image.tile[0].codec_name in ("ppm", "ppm_plain", "bmp_rle"):  # which are written in Python
        working = 3 * pixels * len(image.getbands())
    return _sum(image.width, image.height, _stored(image), working)


def _of_tiff(image: TiffImageFile) -> int:
    """What libtiff takes for a strip or a tile, and Pillow for turning the image as its orientation says."""
    tags = image.tag_v2
    width, rows = image.width, tags.get(_ROWS_PER_STRIP, image.height)
    if _TILE_WIDTH in tags:
        width, rows = tags[_TILE_WIDTH], tags.get(_TILE_LENGTH, 1)
    elif not isinstance(rows, int) or not 0 < rows < image.height:
        rows = image.height
    compression = tags.get(_COMPRESSION, _UNCOMPRESSED)
    samples = tags.get(_SAMPLES, 1)
    a_pixel = 1 + (samples if isinstance(samples, int) else len(image.getbands()))
    a_pixel += _JPEG_STRIP_BYTES if compression in _JPEG_COMPRESSIONS else 0
    strip = 0 if compression == _UNCOMPRESSED and _TILE_WIDTH not in tags else width * rows * a_pixel
    turned = 0 if tags.get(_ORIENTATION, 1) == 1 else image.width * image.height * _stored(image)
    return max(strip, turned)


def _stored(image: ImageFile.ImageFile) -> int:
    return 1 if image.mode in _ONE_CHANNEL else _WIDE


def _sum(width: int, height: int, stored: int, working: float) -> int:
    """``working`` is given back before the pixels are copied to the result."""
    pixels = width * height
    return _OVERHEAD_BYTES + int(width * _ROW_BYTES + pixels * stored + max(pixels * _RGB, working))
