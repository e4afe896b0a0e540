"""The values that travel from a folder of slides to a row of Parquet."""

import errno
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from batchcls.errors import EngineError, RecipeError

Pixels = npt.NDArray[np.uint8]
Logits = npt.NDArray[np.float32]
NormalisedImages = npt.NDArray[np.float32]
"""(N, 3, H, W), as a network sees them in training."""


@dataclass(frozen=True, slots=True)
class DevicePixels:
    """(N, H, W, 3) uint8 in a GPU's memory, which is given back when ``owner`` goes."""

    shape: tuple[int, ...]
    address: int
    """Of the first byte; the rest follows without gaps."""
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
        """Some consecutive images, in the same memory."""
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise IndexError(f"rows {rows} are not consecutive")
        offset = start * math.prod(self.shape[1:])
        return DevicePixels((max(0, stop - start), *self.shape[1:]), self.address + offset, self.owner)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Source: Numba's CUDA Array Interface, version 3. It names no stream to wait for: the content is complete."""
        return {"shape": self.shape, "typestr": "|u1", "data": (self.address, False), "strides": None, "version": 3}


Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
Channels = Literal["RGB", "BGR"]
Resize = Literal["stretch", "shorter"]

LARGEST_SIDE_PX = 4096
"""Of a network's input."""
METADATA_KEY = b"batchcls"
"""Under which a Parquet or safetensors file says of its own making, in JSON."""


@dataclass(frozen=True, slots=True)
class Preprocess:
    """How an image file becomes what the network was trained on."""

    size_px: tuple[int, int] = (224, 224)
    """Height and width of the network's input."""
    resize: Resize = "stretch"
    """``stretch`` to ``size_px``; or scale the ``shorter`` side to ``shorter_px``, then crop the centre."""
    shorter_px: int = 256
    interpolation: Interpolation = "bilinear"
    """As Pillow does it: ``nearest`` takes single pixels, the others always filter with antialiasing."""
    channels: Channels = "RGB"
    """The order in which the network takes them: ``BGR`` where OpenCV or Caffe read the images in training."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """On the scale 0 to 1, in the order of ``channels``."""
    transform_input: bool = False
    """Whether GoogLeNet or Inception v3 renormalises its input once more, as torchvision's fine-tuned ones do."""

    def __post_init__(self) -> None:
        if len(self.size_px) != 2 or not all(1 <= side <= LARGEST_SIDE_PX for side in self.size_px):
            raise RecipeError(f"size_px is {self.size_px!r}; both sides must lie in 1..{LARGEST_SIDE_PX} pixels")
        if self.resize not in get_args(Resize):
            raise RecipeError(f"resize is {self.resize!r}; use one of {get_args(Resize)}")
        if self.interpolation not in get_args(Interpolation):
            raise RecipeError(f"interpolation is {self.interpolation!r}; use one of {get_args(Interpolation)}")
        if self.channels not in get_args(Channels):
            raise RecipeError(f"channels is {self.channels!r}; use one of {get_args(Channels)}")
        if self.resize == "shorter" and not max(self.size_px) <= self.shorter_px <= 8192:
            raise RecipeError(f"shorter_px is {self.shorter_px}; it must lie in {max(self.size_px)}..8192 pixels")
        if len(self.mean) != 3 or not all(map(math.isfinite, self.mean)):
            raise RecipeError(f"mean is {self.mean!r}; it must hold three numbers")
        if len(self.std) != 3 or not all(math.isfinite(value) and value > 0 for value in self.std):
            raise RecipeError(f"std is {self.std!r}; it must hold three numbers above 0")

    def region(self, width: int, height: int) -> tuple[float, float, float, float]:
        """The box of a ``width`` x ``height`` image that is resampled to ``size_px``.

        Resampling this box gives what resizing the whole image and cropping its centre would give, with torchvision's
        rounding: ``Resize`` cuts the longer side down to a whole pixel, ``CenterCrop`` rounds half to even.

        Returns:
            Left, top, right and bottom in source pixels.
        """
        if self.resize == "stretch":
            return 0.0, 0.0, float(width), float(height)
        scaled_width, scaled_height, left, top = self.crop(width, height)
        crop_height, crop_width = self.size_px
        across, down = width / scaled_width, height / scaled_height
        return left * across, top * down, (left + crop_width) * across, (top + crop_height) * down

    def crop(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Where ``resize`` is ``shorter``: width and height once scaled, and the crop's left and top."""
        shorter = min(width, height)
        scaled_width = int(self.shorter_px * width / shorter)
        scaled_height = int(self.shorter_px * height / shorter)
        crop_height, crop_width = self.size_px
        return (
            scaled_width,
            scaled_height,
            round((scaled_width - crop_width) / 2),
            round((scaled_height - crop_height) / 2),
        )

    def ordered(self, pixels: Pixels) -> Pixels:
        """(..., 3) uint8 RGB, with the channels in the network's order."""
        return pixels if self.channels == "RGB" else np.ascontiguousarray(pixels[..., ::-1])


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What an engine eats and answers, and what it was made from."""

    name: str
    labels: tuple[str, ...]
    preprocess: Preprocess
    onnx_sha256: str
    checkpoint_sha256: str
    backend: str
    device: str
    precision: str
    """What the backend computes in, which may be narrower than what the file stores."""
    temperature: float = 1.0
    """That the trained network's logits are divided by."""

    def check_pixels(self, pixels: Pixels | DevicePixels) -> None:
        """Refuse a batch that is not what the engine's contract asks for.

        Raises:
            EngineError: If ``pixels`` is not (N, H, W, 3) uint8 of this engine's H and W.
        """
        wanted = (*self.preprocess.size_px, 3)
        if pixels.dtype != np.uint8 or pixels.shape[1:] != wanted:
            found = f"{pixels.shape} {pixels.dtype}"
            raise EngineError(f"engine {self.name!r} takes {('N', *wanted)} uint8, this batch is {found}")

    def host_pixels(self, pixels: Pixels | DevicePixels) -> Pixels:
        """``pixels``, checked, of an engine that runs on the CPU.

        Raises:
            EngineError: As by `check_pixels`, or if they are on a GPU.
        """
        self.check_pixels(pixels)
        if isinstance(pixels, DevicePixels):
            raise EngineError(f"backend {self.backend!r} takes pixels on the host, these are on a GPU")
        return pixels


@dataclass(frozen=True, slots=True)
class Slide:
    """One image file, named by the folder it was asked for by and its path below it."""

    root: str
    path: str
    """Relative to ``root``; bytes that are not UTF-8 stand as Python's surrogate escapes."""
    size_bytes: int | None = field(default=None, compare=False)
    modified_ns: int | None = field(default=None, compare=False)
    """Nanoseconds since 1970, UTC; like the size, None until the file has been opened."""

    @property
    def file(self) -> str:
        return os.path.join(self.root, self.path)


FailureKind = Literal[
    "empty", "missing", "unreadable", "not an image", "unsupported", "too large", "corrupt", "no answer"
]

NO_ANSWER = "no answer in"
"""How the reason of a read that never returned begins."""
TRANSIENT_ERRNOS = frozenset(
    (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.ENODEV, errno.ENXIO, errno.EREMOTEIO)
    + (errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET, errno.ENOLINK)
    + (errno.ECONNRESET, errno.ECONNABORTED, errno.ECONNREFUSED, errno.ESHUTDOWN, errno.EAGAIN, errno.ECOMM)
)
"""What a disk or a network may say today and not tomorrow."""
_TRANSIENT_TEXTS = tuple(f"unreadable: {reason}" for reason in (NO_ANSWER, *map(os.strerror, TRANSIENT_ERRNOS)))


def is_transient(error: str) -> bool:
    """Whether a row's ``error`` is worth another read, some other day."""
    return error.startswith(_TRANSIENT_TEXTS)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a file has no label; it keeps its row."""

    slide: Slide
    kind: FailureKind
    reason: str
    width: int | None = None
    height: int | None = None
    """As far as the header told."""

    @property
    def text(self) -> str:
        return f"{self.kind}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Postponed:
    """A file that needs more memory than there is; it has no row yet, and a run with more goes on with it."""

    slide: Slide
    needed_bytes: int
    """What a run's budget has to be for it: of whoever tells it, with all that it counts itself."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Decoded images, ready for an engine, and the files on the way that could not be decoded."""

    slides: Sequence[Slide]
    """Row ``i`` of ``pixels`` was decoded from ``slides[i]``."""
    sizes: Sequence[tuple[int, int]]
    """Width and height of each file, in pixels, as decoded."""
    pixels: Pixels | DevicePixels
    """(N, H, W, 3) uint8 RGB, resized but not normalised; N may be 0."""
    failures: Sequence[Failure] = ()
    postponed: Sequence[Postponed] = ()
    """Neither decoded nor failed."""
    read_s: float = 0.0
    """Seconds the decoder waited for bytes."""
    decode_s: float = 0.0
    """Seconds from the bytes to ``pixels``."""

    @property
    def files(self) -> int:
        return len(self.slides) + len(self.failures)


@dataclass(frozen=True, slots=True)
class Predictions:
    """What an engine says of a batch, row by row."""

    labels: npt.NDArray[np.int32]
    """(N,) index of the most probable class."""
    probabilities: npt.NDArray[np.float32]
    """(N, classes), 0 to 1, each row summing to 1."""
    finite: npt.NDArray[np.bool_]
    """(N,) False where the network answered with something that is not a number."""


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What became of a batch: a prediction or a failure for each file that memory is there for."""

    slides: Sequence[Slide]
    """Row ``i`` of ``predictions`` is of ``slides[i]``."""
    sizes: Sequence[tuple[int, int]]
    """Width and height of each, in pixels, as decoded."""
    predictions: Predictions
    failures: Sequence[Failure] = ()
    postponed: Sequence[Postponed] = ()
    """Neither predicted nor failed."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """By stage."""

    @property
    def files(self) -> int:
        return len(self.slides) + len(self.failures)
