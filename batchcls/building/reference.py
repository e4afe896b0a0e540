"""The trained network's own answers to image files: Pillow, torchvision's transforms, float32."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

from batchcls.images.image_file import opened_image
from batchcls.networks.preprocess import Preprocess
from batchcls.networks.transforms import input_transform
from batchcls.records import Logits, NormalizedImages, Pixels, Slide

Answer = Callable[[NormalizedImages], Logits]
"""Function from (N, 3, H, W) float32 images, normalized, to (N, classes) float32 logits."""


def torch_answer(module: nn.Module) -> Answer:
    """An `Answer` by a float32 PyTorch module in eval mode, on the CPU."""
    module = module.to(memory_format=torch.channels_last)

    def answer(images: NormalizedImages) -> Logits:
        with torch.inference_mode():
            logits = module(torch.from_numpy(images).contiguous(memory_format=torch.channels_last))
        return np.asarray(logits.numpy())

    return answer


def tempered(answer: Answer, temperature: float) -> Answer:
    """``answer`` with its logits divided by ``temperature``."""
    return lambda images: answer(images) / np.float32(temperature)


class Reference:
    """A trained network that answers to image files, preprocessed as in training.

    Args:
        answer: The network, which takes normalized images.
        preprocess: Preprocessing of the images in training.
    """

    def __init__(self, answer: Answer, preprocess: Preprocess) -> None:
        self._answer = answer
        self._preprocess = preprocess
        self._transform = input_transform(preprocess)

    def logits_of_pixels(self, pixels: Pixels) -> Logits:
        """Logits, (N, classes) float32, of (N, H, W, 3) uint8 RGB that already have the network's size."""
        mean, std = np.asarray(self._preprocess.mean, np.float32), np.asarray(self._preprocess.std, np.float32)
        normalized = (self._preprocess.ordered(pixels) / np.float32(255) - mean) / std
        return self._answer(np.ascontiguousarray(normalized.transpose(0, 3, 1, 2)))

    def logits(self, slides: Sequence[Slide]) -> tuple[list[int], Logits]:
        """Positions in ``slides`` of the images that Pillow can read, and their (N, classes) float32 logits."""
        images = [(position, self._read(slide)) for position, slide in enumerate(slides)]
        readable = [(position, image) for position, image in images if image is not None]
        if not readable:
            return [], np.empty((0, 0), np.float32)
        return [position for position, _ in readable], self._answer(np.stack([image for _, image in readable]))

    def normalized(self, slides: Sequence[Slide]) -> list[NormalizedImages]:
        """The images that Pillow can read of ``slides``, each (1, 3, H, W) float32, as the network sees them."""
        return [image[None] for image in map(self._read, slides) if image is not None]

    def _read(self, slide: Slide) -> NormalizedImages | None:
        try:
            with opened_image(slide) as image:
                return np.asarray(self._transform(image.convert("RGB")).numpy())
        except (OSError, ValueError, SyntaxError):
            return None
