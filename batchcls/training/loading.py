"""Labeled image files become batches that a network can learn from."""

import ctypes
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler

from batchcls.errors import TrainingError
from batchcls.images.image_file import opened_image
from batchcls.networks.transforms import Transform
from batchcls.records import Slide

_MOST_WORKERS = 8
_PR_SET_PDEATHSIG = 1
"""Number of the operation of prctl(2) that ends a process with its parent."""
_EVALUATION_BATCH_SIZE = 32

Batches = DataLoader[tuple[Tensor, int]]
"""Yields images (N, 3, H, W) float32, normalized, and their classes (N,) int64, both on the CPU."""


@dataclass(frozen=True, slots=True)
class Examples:
    """Slides and the class of each."""

    slides: Sequence[Slide]
    targets: Sequence[int]
    """Class of each slide, 0 to ``classes - 1``."""
    classes: int
    """Number of classes."""

    @property
    def class_weights(self) -> Tensor:
        """(classes,) float32, inverse to the number of slides of each class, 1 on average over the slides."""
        counts = np.bincount(self.targets, minlength=self.classes)
        return torch.tensor(len(self.targets) / (self.classes * counts), dtype=torch.float32)


class ExampleDataset(Dataset[tuple[Tensor, int]]):
    """Examples as PyTorch loads them: a transformed image (3, H, W) float32 and its class at each position."""

    def __init__(self, examples: Examples, transform: Transform) -> None:
        self._examples = examples
        self._transform = transform

    def __len__(self) -> int:
        return len(self._examples.slides)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        slide = self._examples.slides[position]
        with open_example(slide) as image:
            return self._transform(image.convert("RGB")), self._examples.targets[position]


@contextmanager
def open_example(slide: Slide) -> Iterator[Image.Image]:
    """A context that yields a training image, opened by Pillow.

    Raises:
        TrainingError: If the file can no longer be read.
    """
    try:
        with opened_image(slide) as image:
            yield image
    except (OSError, ValueError, SyntaxError) as error:
        raise _ImageGoneError(
            f"{slide.file!r} could be read before the training, and now it cannot: "
            f"{getattr(error, 'strerror', None) or error}; put it back, and run the same command again"
        ) from error


def ordered_batches(examples: Examples, transform: Transform) -> Batches:
    """Batches of all examples, in their order."""
    return DataLoader(
        ExampleDataset(examples, transform),
        _EVALUATION_BATCH_SIZE,
        num_workers=_worker_count(),
        worker_init_fn=_end_with_parent,
    )


def shuffled_batches(examples: Examples, transform: Transform, batch_size: int, *, balanced: bool = False) -> Batches:
    """Batches of examples, in another order each time that they are iterated.

    Args:
        examples: Images and their classes.
        transform: From a Pillow image to the network's input, (3, H, W) float32.
        batch_size: Images per batch.
        balanced: Whether each class is drawn equally often, instead of each image once.
    """
    sampler = None
    if balanced:
        weights = examples.class_weights[list(examples.targets)]
        sampler = WeightedRandomSampler(weights.tolist(), len(weights))
    images = len(examples.slides)
    return DataLoader(
        ExampleDataset(examples, transform),
        batch_size,
        shuffle=sampler is None,
        sampler=sampler,
        drop_last=images > batch_size and images % batch_size == 1,  # one image alone has no variance
        num_workers=_worker_count(),
        worker_init_fn=_end_with_parent,
        persistent_workers=True,
    )


class _ImageGoneError(TrainingError):
    """A training image can no longer be read.

    PyTorch raises an error of a worker process again with the whole traceback as its text; only the message is kept.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text.rpartition(f"{type(self).__name__}: ")[2].strip())


def _end_with_parent(worker: int) -> None:
    """Let a PyTorch worker process end with its parent, and leave signals to the parent.

    The worker also holds its parent's lock on the output, which must not outlive a parent that was killed. A signal to
    the whole process group, such as Ctrl-C, is handled by the parent alone, for if a worker is killed by a signal,
    PyTorch raises an error in the parent at any point, even in a destructor.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def _worker_count() -> int:
    return min(_MOST_WORKERS, torch.get_num_threads())
