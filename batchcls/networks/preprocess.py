"""How an image becomes the input of a network."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from batchcls.errors import RecipeError
from batchcls.records import Pixels

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
Channels = Literal["RGB", "BGR", "L"]
Resize = Literal["stretch", "shorter"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LUMA, LUMA_TOTAL = np.array([19595, 38470, 7471], np.int32), 65536
"""Parts of R, G and B in a gray pixel, and their sum. Source: Pillow's convert("L"), which rounds half up."""
LARGEST_SIDE_PX = 4096
"""Largest height or width of a network's input, in pixels."""


@dataclass(frozen=True, slots=True)
class Preprocess:
    """How an image becomes the input that the network was trained on."""

    size_px: tuple[int, int] = (224, 224)
    """Height and width of the network's input."""
    resize: Resize = "stretch"
    """``stretch`` to ``size_px``; or scale the ``shorter`` side to ``shorter_px``, then crop the center."""
    shorter_px: int = 256
    """Length of the shorter side before cropping, for ``resize`` ``shorter``."""
    interpolation: Interpolation = "bilinear"
    """Pillow's filter: ``nearest`` takes single pixels, the others filter with antialiasing."""
    channels: Channels = "RGB"
    """The network's channels: ``BGR`` if OpenCV or Caffe read the images in training; ``L``: one channel, gray."""
    mean: tuple[float, ...] = ()
    """Mean that is subtracted, on the scale 0 to 1, in the order of ``channels``; empty: ImageNet's, or 0.5 of gray."""
    std: tuple[float, ...] = ()
    """Standard deviation that is divided by, on the scale 0 to 1, as ``mean``."""
    transform_input: bool = False
    """Whether GoogLeNet or Inception v3 normalizes its input once more, as torchvision's pretrained ones do."""

    def __post_init__(self) -> None:
        if len(self.size_px) != 2 or not all(1 <= side <= LARGEST_SIDE_PX for side in self.size_px):
            raise RecipeError(f"size_px is {self.size_px!r}; both sides must lie in 1..{LARGEST_SIDE_PX} pixels")
        for key, allowed in (("resize", Resize), ("interpolation", Interpolation), ("channels", Channels)):
            if getattr(self, key) not in get_args(allowed):
                raise RecipeError(f"{key} is {getattr(self, key)!r}; use one of {get_args(allowed)}")
        if self.resize == "shorter" and not max(self.size_px) <= self.shorter_px <= 8192:
            raise RecipeError(f"shorter_px is {self.shorter_px}; it must lie in {max(self.size_px)}..8192 pixels")
        for key, default, bound in (("mean", IMAGENET_MEAN, -math.inf), ("std", IMAGENET_STD, 0)):
            gray, numbers = self.channels == "L", getattr(self, key)
            numbers = numbers or ((0.5,) if gray else default)
            numbers = numbers[:1] if gray and len(set(numbers)) == 1 else numbers
            if len(numbers) != self.channel_count or not all(bound < number < math.inf for number in numbers):
                count = f"{'one number' if gray else 'three numbers'}{' above 0' if bound == 0 else ''}"
                raise RecipeError(f"{key} is {numbers!r}; it must hold {count}")
            object.__setattr__(self, key, numbers)

    @property
    def channel_count(self) -> int:
        """Number of the network's input channels: 3, or 1 of gray."""
        return 1 if self.channels == "L" else 3

    def region(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the box of a ``width`` x ``height`` image that is resampled to ``size_px``.

        Resampling this box equals resizing the whole image and cropping its center, with torchvision's rounding:
        ``Resize`` cuts the longer side down to a whole pixel, ``CenterCrop`` rounds half to even.
        """
        if self.resize == "stretch":
            return 0.0, 0.0, float(width), float(height)
        scaled_width, scaled_height, left, top = self.crop(width, height)
        crop_height, crop_width = self.size_px
        across, down = width / scaled_width, height / scaled_height
        return left * across, top * down, (left + crop_width) * across, (top + crop_height) * down

    def crop(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Width and height of the scaled image, and left and top of the crop in it, for ``resize`` ``shorter``."""
        shorter = min(width, height)
        scaled_width = int(self.shorter_px * width / shorter)
        scaled_height = int(self.shorter_px * height / shorter)
        left, top = (scaled_width - self.size_px[1]) / 2, (scaled_height - self.size_px[0]) / 2
        return scaled_width, scaled_height, round(left), round(top)

    def ordered(self, pixels: Pixels) -> Pixels:
        """(..., 3) uint8 with the channels of RGB ``pixels`` in the network's order; in gray (..., 1)."""
        if self.channels == "L":
            return np.asarray(((pixels @ LUMA + LUMA_TOTAL // 2) // LUMA_TOTAL)[..., None], np.uint8)
        return pixels if self.channels == "RGB" else np.ascontiguousarray(pixels[..., ::-1])
