"""Pillow's decoding of image files, which defines the pixels of training and of runs."""

import io

import numpy as np
from PIL import Image, ImageFile

from batchcls.images.formats.refusal import RefusedError
from batchcls.records import Pixels

_SMALL_PIXELS, _BAND_PIXELS = 1 << 20, 1 << 18


def open_image(format_: str, data: bytes | memoryview) -> ImageFile.ImageFile:
    """An image of which Pillow has read only the header; may raise any error if Pillow cannot read the header.

    Args:
        format_: Pillow's name for the format; no other one is tried.
        data: The file's bytes, or as many as hold the header.
    """
    Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit would warn, or raise another error; `examine` checks the size
    # From bytes, because Pillow memory-maps some files that it opens by name, and turns these wrongly.
    return Image.open(io.BytesIO(data), formats=(format_,))


def check_size_px(image: Image.Image, width: int, height: int) -> None:
    """Refuse an image whose size differs from that in its header.

    Raises:
        RefusedError: If the sizes differ.
    """
    if image.size != (width, height):
        raise RefusedError("corrupt", "its headers contradict one another")


def rgb_pixels(image: Image.Image) -> Pixels:
    """(H, W, 3) uint8 RGB pixels of a loaded image; a large image is converted in pieces, without a second copy."""
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
