"""What the training framework answers: Pillow, torchvision's transforms, float32."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

from batchcls.images.image_file import opened_image
from batchcls.networks.transforms import input_transform
from batchcls.records import Logits, NormalisedImages, Pixels, Preprocess

Answer = Callable[[NormalisedImages], Logits]


def torch_answer(module: nn.Module) -> Answer:
    """A float32 PyTorch module, in eval mode, as it answers in training."""
    module = module.to(memory_format=torch.channels_last)

    def answer(images: NormalisedImages) -> Logits:
        with torch.inference_mode():
            logits = module(torch.from_numpy(images).contiguous(memory_format=torch.channels_last))
        return np.asarray(logits.numpy())

    return answer


class Reference:
    """Logits of image files, the way that training saw them."""

    def __init__(self, answer: Answer, preprocess: Preprocess) -> None:
        self._answer = answer
        self._preprocess = preprocess
        self._transform = input_transform(preprocess)

    def logits_of_pixels(self, pixels: Pixels) -> Logits:
        """What the network answers to (N, H, W, 3) uint8 RGB that need no resizing."""
        mean, std = np.asarray(self._preprocess.mean, np.float32), np.asarray(self._preprocess.std, np.float32)
        normalised = (self._preprocess.ordered(pixels) / np.float32(255) - mean) / std
        return self._answer(np.ascontiguousarray(normalised.transpose(0, 3, 1, 2)))

    def logits(self, files: Sequence[str]) -> tuple[list[int], Logits]:
        """The positions of those files that Pillow can read, and their (N, classes) float32 logits."""
        images = [(position, self._read(file)) for position, file in enumerate(files)]
        readable = [(position, image) for position, image in images if image is not None]
        if not readable:
            return [], np.empty((0, 0), np.float32)
        return [position for position, _ in readable], self._answer(np.stack([image for _, image in readable]))

    def normalised(self, files: Sequence[str]) -> list[NormalisedImages]:
        """Those of ``files`` that Pillow can read, (1, 3, H, W) float32 each, as the network sees them."""
        return [image[None] for image in map(self._read, files) if image is not None]

    def _read(self, file: str) -> NormalisedImages | None:
        try:
            with opened_image(file) as image:
                return np.asarray(self._transform(image.convert("RGB")).numpy())
        except (OSError, ValueError, SyntaxError):
            return None
