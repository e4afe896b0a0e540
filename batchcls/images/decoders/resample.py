"""Resampling of decoded images to an engine's input size, by Pillow's filters or by faster vectorized ones."""

import math
from collections.abc import Callable

import numpy as np
from cykooz_resizer import CropBox, FilterType, ImageData, PixelType, ResizeAlg, ResizeOptions, Resizer
from PIL import Image

from batchcls.networks.preprocess import Preprocess
from batchcls.records import Pixels

_PILLOW_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_BAND_BYTES = 4 << 20
_MOST_PIXELS_BETWEEN = 64_000_000
"""Largest intermediate image between the two passes of resampling; long and narrow images can grow a thousandfold."""
_RGB, _PILLOW_RGB = 3, 4
"""Bytes per pixel in an array, and in Pillow's memory."""
_SAMPLED_ROWS = 2
_LARGEST_DIFFERENCE = 0.4
"""Largest mean difference from Pillow's pixels (of 255) in any of the compared rows."""

_LONG_SIDE = 1_000_000
"""Side in pixels beyond which Pillow's tables of weights would take more memory than the image."""
_PIECE_PIXELS = 1 << 20
_LARGEST_SUPPORT = 3
"""Radius of the lanczos filter, in pixels of the smaller image."""
_WEIGHT_BYTES = 8 * 2 * _LARGEST_SUPPORT
"""Bytes of weights for each pixel of a side."""

_Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""
Resample = Callable[[Pixels, Preprocess], Pixels]
"""Function from an image, (H, W, 3) uint8 RGB, to pixels in the engine's input size, which the caller owns."""


def resample_exactly(image: Pixels, preprocess: Preprocess) -> Pixels:
    """(H, W, 3) uint8 pixels in the engine's input size, bit for bit those of torchvision in training.

    Exception: of an image so long and narrow that it would grow a thousandfold before being cropped, only the crop is
    resampled, with other rounding.
    """
    if _has_engine_size(image, preprocess):
        return image
    height, width = preprocess.size_px
    resampling = _PILLOW_FILTERS[preprocess.interpolation]
    if max(image.shape[:2]) > _LONG_SIDE:
        return _resample_long(image, preprocess)
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


def cost_bytes(width: int, height: int, preprocess: Preprocess) -> int:
    """Peak memory in bytes of resampling an image of ``width`` x ``height`` pixels, with the image itself."""
    if preprocess.resize == "shorter":
        scaled_width, scaled_height, _, _ = preprocess.crop(width, height)
        between = max(scaled_width * max(scaled_height, height), width * scaled_height)
    else:
        between = height * preprocess.size_px[1]
    between = min(between, _MOST_PIXELS_BETWEEN) + math.prod(preprocess.size_px)
    weights = _WEIGHT_BYTES * sum(min(side, _LONG_SIDE) for side in (width, height))
    return width * height * (_RGB + _PILLOW_RGB) + between * 2 * _PILLOW_RGB + weights


def resample_quickly(image: Pixels, preprocess: Preprocess) -> Pixels:
    """Pixels within 2 of 255 of those of `resample_exactly`, for bilinear filters in a quarter of its time.

    For other filters `resample_exactly` is called, for those that overshoot (bicubic, lanczos) depend on Pillow's
    rounding between the two passes.
    """
    rows, columns = image.shape[:2]
    height, width = preprocess.size_px
    too_long = max(columns * height, rows * width) > _MOST_PIXELS_BETWEEN
    if preprocess.interpolation != "bilinear" or too_long or _has_engine_size(image, preprocess):
        return resample_exactly(image, preprocess)
    box = _box(image, preprocess)
    pixels = _in_bands(image, preprocess, box)
    return pixels if _is_close(pixels, image, box) else resample_exactly(image, preprocess)


def _resample_long(image: Pixels, preprocess: Preprocess) -> Pixels:
    """Resample an image with a side beyond `_LONG_SIDE`: along that side first, some columns at a time."""
    height, width = preprocess.size_px
    resampling = _PILLOW_FILTERS[preprocess.interpolation]
    left, top, right, bottom = _box(image, preprocess)
    if image.shape[1] > _LONG_SIDE:
        image = _resample_columns(image, left, right, width, resampling)
        left, right = 0, width
    if image.shape[0] > _LONG_SIDE:
        image = _resample_columns(image.swapaxes(0, 1), top, bottom, height, resampling).swapaxes(0, 1)
        top, bottom = 0, height
    whole = Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(whole.resize((width, height), resampling, box=(left, top, right, bottom)))


def _resample_columns(image: Pixels, left: float, right: float, width: int, resampling: Image.Resampling) -> Pixels:
    """The part of ``image`` between ``left`` and ``right``, resampled to ``width`` pixels, with its height."""
    rows, scale = len(image), (right - left) / width
    step = max(1, int(_PIECE_PIXELS / (rows * scale)))
    reach = _LARGEST_SUPPORT * max(1.0, scale) + 1
    pixels = np.empty((rows, width, 3), np.uint8)
    for first in range(0, width, step):
        last = min(width, first + step)
        start, end = left + first * scale, left + last * scale
        begin = max(0, math.floor(start - reach))
        piece = np.ascontiguousarray(image[:, begin : math.ceil(end + reach)])
        box = (start - begin, 0, min(end - begin, piece.shape[1]), rows)
        pixels[:, first:last] = np.asarray(Image.fromarray(piece).resize((last - first, rows), resampling, box=box))
    return pixels


def _is_close(pixels: Pixels, image: Pixels, box: _Box) -> bool:
    """Whether a few rows of ``pixels`` are close to Pillow's; in striped images, every pixel may round otherwise."""
    height, width = pixels.shape[:2]
    mean_differences = []
    for row in np.linspace(0, height, _SAMPLED_ROWS + 2)[1:-1].astype(int).tolist():
        band, inside = _band(image, box, height, row, row + 1)
        expected = np.asarray(Image.fromarray(band).resize((width, 1), Image.Resampling.BILINEAR, box=inside))[0]
        mean_differences.append(float((np.maximum(pixels[row], expected) - np.minimum(pixels[row], expected)).mean()))
    return max(mean_differences) <= _LARGEST_DIFFERENCE


def _in_bands(image: Pixels, preprocess: Preprocess, box: _Box) -> Pixels:
    """``box`` of ``image`` in the engine's size, resampled a band of rows at a time, without a copy of the image."""
    height, width = preprocess.size_px
    step = max(1, int(_BAND_BYTES / (3 * image.shape[1] * (box[3] - box[1]) / height)))
    pixels = np.empty((height, width, 3), np.uint8)
    for first in range(0, height, step):
        last = min(height, first + step)
        band, inside = _band(image, box, height, first, last)
        pixels[first:last] = _convolved(band, (width, last - first), inside)
    return pixels


def _band(image: Pixels, box: _Box, height: int, first: int, last: int) -> tuple[Pixels, _Box]:
    """The rows of ``image`` that rows ``first`` to ``last`` of ``height`` depend on, and their box in these rows."""
    left, top, right, bottom = box
    scale = (bottom - top) / height
    reach = max(1.0, scale) + 1
    start = max(0, math.floor(top + first * scale - reach))
    band = image[start : math.ceil(top + last * scale + reach)]
    return band, (left, top + first * scale - start, right, min(top + last * scale - start, len(band)))


def _convolved(image: Pixels, size: tuple[int, int], box: _Box) -> Pixels:
    """``box`` of ``image``, resampled to ``size``, width and height."""
    left, top, right, bottom = box
    source = ImageData(image.shape[1], image.shape[0], PixelType.U8x3, image.tobytes())
    target = ImageData(*size, PixelType.U8x3)
    options = ResizeOptions(
        resize_alg=ResizeAlg.convolution(FilterType.bilinear),
        crop_box=CropBox(left, top, right - left, bottom - top),
        use_alpha=False,
    )
    Resizer().resize(source, target, options)
    return np.frombuffer(target.get_buffer(), np.uint8).reshape(size[1], size[0], 3)


def _has_engine_size(image: Pixels, preprocess: Preprocess) -> bool:
    return image.shape[:2] == preprocess.size_px and preprocess.resize == "stretch"


def _box(image: Pixels, preprocess: Preprocess) -> _Box:
    """The part of ``image`` that the engine sees: left, top, right and bottom in pixels of the image."""
    height, width = image.shape[:2]
    left, top, right, bottom = preprocess.region(width, height)
    return left, top, min(right, width), min(bottom, height)
