"""The values that travel from a folder of slides to a row of Parquet."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from batchcls.errors import RecipeError

Pixels = npt.NDArray[np.uint8]
Logits = npt.NDArray[np.float32]
NormalizedImages = npt.NDArray[np.float32]
"""(N, 3, H, W), or (N, 1, H, W) in gray, as a network sees them in training."""


@dataclass(frozen=True, slots=True)
class DevicePixels:
    """(N, H, W, 3) uint8 in a GPU's memory, which lives as long as ``owner``."""

    shape: tuple[int, ...]
    address: int
    """Device address of the first byte; the pixels are contiguous."""
    owner: object

    @property
    def dtype(self) -> np.dtype[np.uint8]:
        return np.dtype(np.uint8)

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> "DevicePixels":
        """Consecutive images, in the same memory.

        Raises:
            IndexError: If ``rows`` has a step other than 1.
        """
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise IndexError(f"rows {rows} are not consecutive")
        offset = start * math.prod(self.shape[1:])
        return DevicePixels((max(0, stop - start), *self.shape[1:]), self.address + offset, self.owner)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Numba's CUDA Array Interface, version 3; no stream is named, for the content is complete."""
        return {"shape": self.shape, "typestr": "|u1", "data": (self.address, False), "strides": None, "version": 3}


Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
Channels = Literal["RGB", "BGR", "L"]
Resize = Literal["stretch", "shorter"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LUMA, LUMA_TOTAL = np.array([19595, 38470, 7471], np.int32), 65536
"""Parts of R, G and B in a gray pixel, and their sum. Source: Pillow's convert("L"), which rounds half up."""
LARGEST_SIDE_PX = 4096
"""Largest height or width of a network's input, in pixels."""
METADATA_KEY = b"batchcls"
"""Key of the JSON metadata in which a Parquet or safetensors file records how it was made."""


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


@dataclass(frozen=True, slots=True)
class Slide:
    """One image file. Root and path name it; a predictions file has one row for each."""

    root: str
    """Folder that the user named."""
    path: str
    """Path below ``root``; bytes that are not UTF-8 stand as Python's surrogate escapes."""
    size_bytes: int | None = field(default=None, compare=False)
    """Size of the file; None until the file has been opened."""
    modified_ns: int | None = field(default=None, compare=False)
    """Time of the last change, nanoseconds since 1970, UTC; None until the file has been opened."""

    @property
    def file(self) -> str:
        """Path of the file, as Python opens it."""
        return os.path.join(self.root, self.path)


FailureKind = Literal[
    "empty", "missing", "unreadable", "not an image", "unsupported", "too large", "corrupt", "no answer"
]


@dataclass(frozen=True, slots=True)
class Failure:
    """A file without a label, and the reason; the file has a row all the same."""

    slide: Slide
    kind: FailureKind
    reason: str
    """Reason in words, without the kind."""
    width: int | None = None
    """Width in pixels; None if the file's header does not tell it."""
    height: int | None = None
    """Height in pixels; None if the file's header does not tell it."""

    @property
    def text(self) -> str:
        """Kind and reason, as the column ``error`` holds them."""
        return f"{self.kind}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Postponed:
    """A file that needs more memory than there is, and so has no row yet; a run with more memory adds the row."""

    slide: Slide
    needed_bytes: int
    """Memory budget that the file needs: the decoder's in a `Batch`, the whole run's where an executor answers."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Decoded images, ready for an engine, and the files on the way that could not be decoded."""

    slides: Sequence[Slide]
    """Row ``i`` of ``pixels`` was decoded from ``slides[i]``."""
    sizes: Sequence[tuple[int, int]]
    """Width and height of each decoded file, in pixels."""
    pixels: Pixels | DevicePixels
    """(N, H, W, 3) uint8 RGB, resized but not normalized; N may be 0."""
    failures: Sequence[Failure] = ()
    """Files that cannot be decoded."""
    postponed: Sequence[Postponed] = ()
    """Files that need more memory than there is."""
    read_s: float = 0.0
    """Seconds that the decoder waited for the files' bytes."""
    decode_s: float = 0.0
    """Seconds from the bytes to ``pixels``."""

    @property
    def files(self) -> int:
        """Number of decoded and failed files."""
        return len(self.slides) + len(self.failures)


@dataclass(frozen=True, slots=True)
class Predictions:
    """The predictions for a batch, a row for each image."""

    labels: npt.NDArray[np.int32]
    """(N,) position of the most probable class."""
    probabilities: npt.NDArray[np.float32]
    """(N, classes), 0 to 1, each row summing to 1."""
    finite: npt.NDArray[np.bool_]
    """(N,) whether every logit of the row is a finite number."""


@dataclass(frozen=True, slots=True)
class BatchResult:
    """The predictions and failures of a batch."""

    slides: Sequence[Slide]
    """Row ``i`` of ``predictions`` belongs to ``slides[i]``."""
    sizes: Sequence[tuple[int, int]]
    """Width and height of each predicted file, in pixels."""
    predictions: Predictions
    failures: Sequence[Failure] = ()
    """Files without a label."""
    postponed: Sequence[Postponed] = ()
    """Files that need more memory than there is."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Seconds by stage: ``read``, ``decode`` and ``infer``."""

    @property
    def files(self) -> int:
        """Number of predicted and failed files."""
        return len(self.slides) + len(self.failures)
