"""Decoded images become an engine's pixels: by Pillow's own filters, or by the same filters in vector instructions."""

from collections.abc import Callable

import numpy as np
from cykooz_resizer import CropBox, FilterType, ImageData, PixelType, ResizeAlg, ResizeOptions, Resizer
from PIL import Image

from batchcls.records import Pixels, Preprocess

_PILLOW_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_VECTOR_FILTERS = {
    "bilinear": FilterType.bilinear,
    "bicubic": FilterType.catmull_rom,
    "lanczos": FilterType.lanczos3,
}

Resample = Callable[[Pixels, Preprocess, tuple[int, int]], Pixels]
"""From an image, (H, W, 3) uint8 RGB, to the engine's pixels, which the caller owns. The last argument is width and
height in the file, of which the image may be a reduced version."""


def exactly(image: Pixels, preprocess: Preprocess, stored_size: tuple[int, int]) -> Pixels:
    """The `Resample` of training: stretched images are bit for bit what torchvision makes of them.

    Of cropped ones, only the crop is resampled, which differs from torchvision's resizing and then cropping by at most
    2 of 255.
    """
    if _is_wanted(image, preprocess):
        return image
    height, width = preprocess.size_px
    resampling, box = _PILLOW_FILTERS[preprocess.interpolation], _box(image, preprocess, stored_size)
    return np.asarray(Image.fromarray(image).resize((width, height), resampling, box=box))


def quickly(image: Pixels, preprocess: Preprocess, stored_size: tuple[int, int]) -> Pixels:
    """The `Resample` of the fast way: an eighth of the time, and no more than 1 of 255 from `exactly`.

    Filters that overshoot (bicubic, lanczos) differ by up to 4 where they do.
    """
    if _is_wanted(image, preprocess):
        return image
    height, width = preprocess.size_px
    left, top, right, bottom = _box(image, preprocess, stored_size)
    source = ImageData(image.shape[1], image.shape[0], PixelType.U8x3, image.tobytes())
    target = ImageData(width, height, PixelType.U8x3)
    options = ResizeOptions(
        resize_alg=ResizeAlg.convolution(_VECTOR_FILTERS[preprocess.interpolation]),
        crop_box=CropBox(left, top, right - left, bottom - top),
        use_alpha=False,
    )
    Resizer().resize(source, target, options)
    return np.frombuffer(target.get_buffer(), np.uint8).reshape(height, width, 3)


def _is_wanted(image: Pixels, preprocess: Preprocess) -> bool:
    return image.shape[:2] == preprocess.size_px and preprocess.resize == "stretch"


def _box(image: Pixels, preprocess: Preprocess, stored_size: tuple[int, int]) -> tuple[float, float, float, float]:
    """What of ``image`` the engine is to see: left, top, right and bottom in its pixels."""
    across, down = (side / stored for side, stored in zip(image.shape[1::-1], stored_size, strict=True))
    left, top, right, bottom = preprocess.region(*stored_size)
    return left * across, top * down, min(right * across, image.shape[1]), min(bottom * down, image.shape[0])
