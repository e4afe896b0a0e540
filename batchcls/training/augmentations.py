"""Random changes of training images that leave a cell's class as it is."""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import nn
from torchvision import transforms

from batchcls.networks.preprocess import Preprocess
from batchcls.networks.transforms import Transform, input_transform

_STAIN = {"brightness": 0.2, "contrast": 0.2, "saturation": 0.25, "hue": 0.04}
"""Arguments of torchvision's ColorJitter at strength 1; hue is a fraction of the color circle: 14 degrees each way."""


def augmented_transform(preprocess: Preprocess, *, flips: bool, turns: bool, stain: float) -> Transform:
    """`input_transform` with random augmentations on the resized image.

    Args:
        flips: Mirror the image along either axis, each with probability 0.5.
        turns: Turn the image by 90 or 270 degrees with probability 0.5; by 180 degrees where the input is not square.
        stain: Strength of random changes of brightness, contrast, saturation and hue; 0: no change.

    Returns:
        A function from a Pillow image to a normalized (3, H, W) float32 tensor.
    """
    steps: list[Any] = []
    if flips:
        steps += [transforms.RandomHorizontalFlip(), transforms.RandomVerticalFlip()]
    if turns:
        square = preprocess.size_px[0] == preprocess.size_px[1]
        angles = (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270) if square else (Image.Transpose.ROTATE_180,)
        steps.append(transforms.RandomApply([_RandomTurn(angles)]))
    if stain:
        steps.append(transforms.ColorJitter(**{name: stain * largest for name, largest in _STAIN.items()}))
    return input_transform(preprocess, steps)


class _RandomTurn(nn.Module):
    """Turns a Pillow image by one of several angles, each as likely."""

    def __init__(self, angles: Sequence[Image.Transpose]) -> None:
        super().__init__()
        self._angles = angles

    def forward(self, image: Image.Image) -> Image.Image:
        return image.transpose(self._angles[int(torch.randint(len(self._angles), ()))])
