"""An image becomes a network's input: torchvision's own steps, for training and for whoever must match it."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image
from torchvision import transforms

from batchcls.records import Preprocess

Transform = Callable[[Image.Image], torch.Tensor]

_FILTERS = {
    "nearest": transforms.InterpolationMode.NEAREST,
    "bilinear": transforms.InterpolationMode.BILINEAR,
    "bicubic": transforms.InterpolationMode.BICUBIC,
    "lanczos": transforms.InterpolationMode.LANCZOS,
}


def input_transform(preprocess: Preprocess, between: Sequence[Any] = ()) -> Transform:
    """torchvision's own steps from a Pillow image to a normalised (3, H, W) float32.

    Args:
        between: Steps on the RGB image once it has its size, such as an augmentation.
    """
    filter_ = _FILTERS[preprocess.interpolation]
    resize = (
        [transforms.Resize(preprocess.size_px, filter_)]
        if preprocess.resize == "stretch"
        else [transforms.Resize(preprocess.shorter_px, filter_), transforms.CenterCrop(preprocess.size_px)]
    )
    ordered = [_reversed] if preprocess.channels == "BGR" else []
    steps: Transform = transforms.Compose(
        [*resize, *between, transforms.ToTensor(), *ordered, transforms.Normalize(preprocess.mean, preprocess.std)]
    )
    return steps


def _reversed(image: torch.Tensor) -> torch.Tensor:
    """(3, H, W) with the channels the other way round."""
    return image.flip(0)
