"""Labelled image files become batches that a network can learn from."""

import ctypes
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler
from torchvision import transforms

from batchcls.errors import TrainingError
from batchcls.images.image_file import opened_image
from batchcls.networks.transforms import Transform, input_transform
from batchcls.records import Preprocess

_STAIN = {"brightness": 0.2, "contrast": 0.2, "saturation": 0.25, "hue": 0.04}
"""ColorJitter at strength 1; hue in turns, so up to 14 degrees either way."""
_MOST_WORKERS = 8
_PR_SET_PDEATHSIG = 1
"""Source: prctl(2)."""
_ANSWERED = 32
"""Images a batch where nothing is learned."""

Batches = DataLoader[tuple[Tensor, int]]


@dataclass(frozen=True, slots=True)
class Examples:
    """Image files and what they are."""

    files: Sequence[str]
    targets: Sequence[int]
    """From 0 to below `classes`."""
    classes: int

    @property
    def weights(self) -> Tensor:
        """(classes,) inverse to how often each is met, 1 on average over the images."""
        counts = np.bincount(self.targets, minlength=self.classes)
        return torch.tensor(len(self.targets) / (self.classes * counts), dtype=torch.float32)


class Images(Dataset[tuple[Tensor, int]]):
    """``examples`` as a network takes them: (3, H, W) float32, normalised."""

    def __init__(self, examples: Examples, transform: Transform) -> None:
        self._examples = examples
        self._transform = transform

    def __len__(self) -> int:
        return len(self._examples.files)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        file = self._examples.files[position]
        with opened(file) as image:
            return self._transform(image.convert("RGB")), self._examples.targets[position]


@contextmanager
def opened(file: str) -> Iterator[Image.Image]:
    """An image that could be read when the training began.

    Raises:
        TrainingError: If it cannot any more.
    """
    try:
        with opened_image(file) as image:
            yield image
    except (OSError, ValueError, SyntaxError) as error:
        raise _ImageGoneError(
            f"{file!r} could be read before the training, and now it cannot: "
            f"{getattr(error, 'strerror', None) or error}; put it back, and run the same command again"
        ) from error


def augmented_transform(preprocess: Preprocess, *, flips: bool, turns: bool, stain: float) -> Transform:
    """`input_transform`, and between its steps what makes each epoch's images a little different.

    None of it changes what a cell is.

    Args:
        turns: By right angles; by 180 degrees where the input is not square.
        stain: Strength of random changes of brightness, contrast, saturation and hue; 0: none.
    """
    steps: list[Any] = []
    if flips:
        steps += [transforms.RandomHorizontalFlip(), transforms.RandomVerticalFlip()]
    if turns:
        square = preprocess.size_px[0] == preprocess.size_px[1]
        angles = (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270) if square else (Image.Transpose.ROTATE_180,)
        steps.append(transforms.RandomApply([_Turn(angles)]))
    if stain:
        steps.append(transforms.ColorJitter(**{name: stain * most for name, most in _STAIN.items()}))
    return input_transform(preprocess, steps)


def batches(examples: Examples, transform: Transform) -> Batches:
    """All of ``examples``, in their order."""
    return DataLoader(Images(examples, transform), _ANSWERED, num_workers=_workers(), worker_init_fn=_end_with_parent)


def shuffled_batches(examples: Examples, transform: Transform, size: int, *, balanced: bool = False) -> Batches:
    """``examples`` in another order each time.

    Args:
        balanced: Draw each class equally often, instead of each image once.
    """
    sampler = None
    if balanced:
        weights = examples.weights[list(examples.targets)]
        sampler = WeightedRandomSampler(weights.tolist(), len(weights))
    return DataLoader(
        Images(examples, transform),
        size,
        shuffle=sampler is None,
        sampler=sampler,
        drop_last=len(examples.files) > size and len(examples.files) % size == 1,  # one image alone has no variance
        num_workers=_workers(),
        worker_init_fn=_end_with_parent,
        persistent_workers=True,
    )


class _ImageGoneError(TrainingError):
    """Of an image that could be read before. A worker of PyTorch's hands it on as the text of a whole traceback."""

    def __init__(self, text: str) -> None:
        super().__init__(text.rpartition(f"{type(self).__name__}: ")[2].strip())


class _Turn(nn.Module):
    def __init__(self, angles: Sequence[Image.Transpose]) -> None:
        super().__init__()
        self._angles = angles

    def forward(self, image: Image.Image) -> Image.Image:
        return image.transpose(self._angles[int(torch.randint(len(self._angles), ()))])


def _end_with_parent(worker: int) -> None:
    """A worker holds its parent's lock on the output as well, which must not outlive a parent that was killed.

    And what is sent to a whole process group is for the parent to hear: Ctrl-C, or SIGTERM, after which a worker does
    end, but not as one that was killed. For those PyTorch raises an error wherever the parent is, even in a destructor.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def _workers() -> int:
    return min(_MOST_WORKERS, torch.get_num_threads())
