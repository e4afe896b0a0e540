"""torchvision's transforms from an image to a network's input, as used in training."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image
from torchvision import transforms

from batchcls.networks.preprocess import Preprocess

Transform = Callable[[Image.Image], torch.Tensor]
"""Function from an RGB image to a normalized (3, H, W), or in gray (1, H, W), float32 tensor on the CPU."""

_FILTERS = {
    "nearest": transforms.InterpolationMode.NEAREST,
    "bilinear": transforms.InterpolationMode.BILINEAR,
    "bicubic": transforms.InterpolationMode.BICUBIC,
    "lanczos": transforms.InterpolationMode.LANCZOS,
}


def input_transform(preprocess: Preprocess, image_steps: Sequence[Any] = ()) -> Transform:
    """torchvision's transforms that resize, crop and normalize an image, which becomes gray first of all where it does.

    Args:
        image_steps: Further functions from image to image, such as augmentations, applied after resizing.
    """
    gray = [transforms.Grayscale()] if preprocess.channels == "L" else []
    reorder = [_reverse_channels] if preprocess.channels == "BGR" else []
    steps: Transform = transforms.Compose(
        [
            *gray,
            *_sizing(preprocess),
            *image_steps,
            transforms.ToTensor(),
            *reorder,
            transforms.Normalize(preprocess.mean, preprocess.std),
        ]
    )
    return steps


def pixel_transform(preprocess: Preprocess) -> Transform:
    """torchvision's transforms that resize and crop an RGB image, to (H, W, 3) uint8."""
    steps: Transform = transforms.Compose([*_sizing(preprocess), transforms.PILToTensor(), _channels_last])
    return steps


def _sizing(preprocess: Preprocess) -> list[Any]:
    filter_ = _FILTERS[preprocess.interpolation]
    if preprocess.resize == "stretch":
        return [transforms.Resize(preprocess.size_px, filter_)]
    return [transforms.Resize(preprocess.shorter_px, filter_), transforms.CenterCrop(preprocess.size_px)]


def _channels_last(image: torch.Tensor) -> torch.Tensor:
    return image.permute(1, 2, 0)


def _reverse_channels(image: torch.Tensor) -> torch.Tensor:
    """A (3, H, W) image with its channels in reverse order: RGB becomes BGR."""
    return image.flip(0)
