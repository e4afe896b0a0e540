"""The pixels that Pillow makes of an image file: those that training sees."""

import io

import numpy as np
from PIL import Image, ImageFile

from batchcls.images.formats.refusal import RefusedError
from batchcls.records import Pixels

_SMALL_PIXELS, _BAND_PIXELS = 1 << 20, 1 << 18


def open_image(format_: str, data: bytes) -> ImageFile.ImageFile:
    """An image of which Pillow has read no more than the header; raises anything if Pillow cannot read that.

    Args:
        format_: Pillow's name for the format; no other one is tried.
        data: The file's bytes, or as many as hold the header.
    """
    Image.MAX_IMAGE_PIXELS = None  # it would warn, and raise what is no ValueError; `examine` checks the size
    # From bytes: of a file that it has the name of, Pillow maps some, and turns those wrongly.
    return Image.open(io.BytesIO(data), formats=(format_,))


def check_size_px(image: Image.Image, width: int, height: int) -> None:
    """Refuse an image that is of another size than its header said.

    Raises:
        RefusedError: If it is.
    """
    if image.size != (width, height):
        raise RefusedError("corrupt", "its headers contradict one another")


def rgb_pixels(image: Image.Image) -> Pixels:
    """(H, W, 3) uint8 RGB of a loaded image; of a large one, no other copy is made as a whole."""
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
