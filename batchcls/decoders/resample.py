"""Decoded images become an engine's pixels, by Pillow's own filters.

Stretched images are bit for bit what torchvision makes of them. Of cropped ones, only the crop is resampled, which
differs from torchvision's resizing and then cropping by at most 2 of 255.
"""

import numpy as np
from PIL import Image

from batchcls.records import Pixels, Preprocess

_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def resampled(image: Image.Image, preprocess: Preprocess, stored_size: tuple[int, int]) -> Pixels:
    """``image``, RGB, as (H, W, 3) uint8; the memory is the caller's.

    Args:
        stored_size: Width and height in the file, of which ``image`` may be a reduced version.
    """
    height, width = preprocess.size_px
    across, down = (side / stored for side, stored in zip(image.size, stored_size, strict=True))
    left, top, right, bottom = preprocess.region(*stored_size)
    box = (left * across, top * down, right * across, bottom * down)
    return np.asarray(image.resize((width, height), _FILTERS[preprocess.interpolation], box=box))
