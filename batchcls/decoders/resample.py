"""Decoded images become an engine's pixels: by Pillow's own filters, or by the same filters in vector instructions."""

import math
from collections.abc import Callable

import numpy as np
from cykooz_resizer import CropBox, FilterType, ImageData, PixelType, ResizeAlg, ResizeOptions, Resizer
from PIL import Image

from batchcls.records import Pixels, Preprocess

_PILLOW_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_VECTOR_FILTERS = {
    "bilinear": FilterType.bilinear,
    "bicubic": FilterType.catmull_rom,
    "lanczos": FilterType.lanczos3,
}
_SUPPORT_PX = {"bilinear": 1, "bicubic": 2, "lanczos": 3}
"""How far a filter reaches on each side, where it makes nothing smaller."""
_BAND_BYTES = 4 << 20
_MOST_PIXELS_BETWEEN = 64_000_000
"""Of an image that has been resampled in one direction: a long, narrow one can take a thousand times its own memory."""
_LARGEST_DIFFERENCE = 0.4
"""Mean over an image, of 255, between the results of the two orders of resampling."""

Resample = Callable[[Pixels, Preprocess], Pixels]
"""From an image, (H, W, 3) uint8 RGB, to the engine's pixels, which the caller owns."""


def exactly(image: Pixels, preprocess: Preprocess) -> Pixels:
    """The `Resample` of training: bit for bit what torchvision makes of an image.

    Of images that are so long and narrow that they would grow by thousands before they are cropped, only the crop is
    resampled, which rounds otherwise.
    """
    if _is_wanted(image, preprocess):
        return image
    height, width = preprocess.size_px
    resampling = _PILLOW_FILTERS[preprocess.interpolation]
    whole = Image.fromarray(image)
    if preprocess.resize == "shorter":
        scaled_width, scaled_height, across, down = preprocess.crop(*whole.size)
        between = max(scaled_width * max(scaled_height, whole.height), whole.width * scaled_height)
        if between <= _MOST_PIXELS_BETWEEN:
            scaled = whole.resize((scaled_width, scaled_height), resampling)
            return np.asarray(scaled.crop((across, down, across + width, down + height)))
    left, top, right, bottom = _box(image, preprocess)
    if image.shape[0] * width > _MOST_PIXELS_BETWEEN:  # Pillow begins with the rows
        whole = whole.resize((image.shape[1], height), resampling, box=(0, top, image.shape[1], bottom))
        top, bottom = 0, height
    return np.asarray(whole.resize((width, height), resampling, box=(left, top, right, bottom)))


def quickly(image: Pixels, preprocess: Preprocess) -> Pixels:
    """The `Resample` of the fast way: an eighth of the time, and no more than 2 of 255 from `exactly`.

    Filters that overshoot (bicubic, lanczos) differ by more in single pixels, and by 0.5 on average at most.
    """
    rows, columns = image.shape[:2]
    height, width = preprocess.size_px
    too_long = max(columns * height, rows * width) > _MOST_PIXELS_BETWEEN
    if preprocess.interpolation == "nearest" or too_long:
        return exactly(image, preprocess)
    if _is_wanted(image, preprocess):
        return image
    left, top, right, bottom = _box(image, preprocess)
    filter_ = _VECTOR_FILTERS[preprocess.interpolation]
    columns_first = _in_bands(image, preprocess, (left, top, right, bottom))
    if preprocess.interpolation == "bilinear":
        return columns_first
    # These overshoot, which is cut off between the directions, of which Pillow takes now one and now the other first.
    narrowed = _convolved(image, (width, rows), filter_, (left, 0, right, rows))
    rows_first = _convolved(narrowed, (width, height), filter_, (0, top, width, bottom))
    apart = np.maximum(columns_first, rows_first) - np.minimum(columns_first, rows_first)
    return columns_first if apart.mean() <= _LARGEST_DIFFERENCE else exactly(image, preprocess)


def _in_bands(image: Pixels, preprocess: Preprocess, box: tuple[float, float, float, float]) -> Pixels:
    """``box`` of ``image`` in the engine's size, some rows at a time: no copy of a large image is made as a whole."""
    left, top, right, bottom = box
    height, width = preprocess.size_px
    scale = (bottom - top) / height
    reach = _SUPPORT_PX[preprocess.interpolation] * max(1.0, scale) + 1
    step = max(1, int(_BAND_BYTES / (3 * image.shape[1] * scale)))
    pixels = np.empty((height, width, 3), np.uint8)
    for first in range(0, height, step):
        last = min(height, first + step)
        start = max(0, math.floor(top + first * scale - reach))
        band = image[start : math.ceil(top + last * scale + reach)]
        lower = min(top + last * scale - start, len(band))
        inside = left, top + first * scale - start, right, lower
        pixels[first:last] = _convolved(band, (width, last - first), _VECTOR_FILTERS[preprocess.interpolation], inside)
    return pixels


def _convolved(
    image: Pixels, size: tuple[int, int], filter_: FilterType, box: tuple[float, float, float, float]
) -> Pixels:
    """``box`` of ``image``, resampled to width and height."""
    left, top, right, bottom = box
    source = ImageData(image.shape[1], image.shape[0], PixelType.U8x3, image.tobytes())
    target = ImageData(*size, PixelType.U8x3)
    options = ResizeOptions(
        resize_alg=ResizeAlg.convolution(filter_),
        crop_box=CropBox(left, top, right - left, bottom - top),
        use_alpha=False,
    )
    Resizer().resize(source, target, options)
    return np.frombuffer(target.get_buffer(), np.uint8).reshape(size[1], size[0], 3)


def _is_wanted(image: Pixels, preprocess: Preprocess) -> bool:
    return image.shape[:2] == preprocess.size_px and preprocess.resize == "stretch"


def _box(image: Pixels, preprocess: Preprocess) -> tuple[float, float, float, float]:
    """What of ``image`` the engine is to see: left, top, right and bottom in its pixels."""
    height, width = image.shape[:2]
    left, top, right, bottom = preprocess.region(width, height)
    return left, top, min(right, width), min(bottom, height)
