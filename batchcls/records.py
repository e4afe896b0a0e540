"""The values that travel from a folder of slides to a row of Parquet."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Logits = npt.NDArray[np.float32]
Features = npt.NDArray[np.float32]
"""(N, F) numbers on each image beside the logits, as `batchcls.networks.feature_layout` names them; F may be 0."""
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


METADATA_KEY = b"batchcls"
"""Key of the JSON metadata in which a Parquet or safetensors file records how it was made."""


@dataclass(frozen=True, slots=True)
class Slide:
    """One image. Root and path name it; a predictions file has one row for each."""

    root: str
    """Folder, or URL of a bucket or of a folder in it, that the user named; empty where ``path`` is a whole URL."""
    path: str
    """Path below ``root``; of an image in an archive, the archive's path and the image's name in it, joined by a slash.
    Bytes that are not UTF-8 stand as Python's surrogate escapes."""
    size_bytes: int | None = field(default=None, compare=False)
    """Size of the file; None until it is known."""
    modified_ns: int | None = field(default=None, compare=False)
    """Time of the last change, nanoseconds since 1970, UTC; None until it is known."""
    offset: int | None = field(default=None, compare=False)
    """Place in an archive: offset of the first byte in a tar file, or number of the row in a Parquet file. None for a
    file that is in no archive, and where the archive has to be searched for the name."""
    kept: tuple[Any, ...] = field(default=(), compare=False)
    """Values for the columns of the source's ``kept``, which the row takes over."""
    digest: str | None = field(default=None, compare=False)
    """Hexadecimal BLAKE2b digest, of 16 bytes, of the file's bytes; None where contents are not compared."""
    refusal: str | None = field(default=None, compare=False)
    """Reason for which the source forbids to read the file, so that its row is a failure; None if it may be read."""

    within: str | None = field(default=None, compare=False)
    """Folder that the file must lie in to be read, wherever symbolic links lead; None: anywhere."""

    @property
    def file(self) -> str:
        """Path of the file as Python opens it, or its URL."""
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
class Outputs:
    """An engine's outputs for a batch, on the host."""

    logits: Logits
    """(N, classes) float32."""
    features: Features
    """(N, F) float32; F is 0 for an engine that has no features, or was opened without them."""

    @classmethod
    def without_features(cls, logits: Logits) -> "Outputs":
        """Outputs of an engine that gives no features."""
        return cls(logits, np.empty((len(logits), 0), np.float32))


@dataclass(frozen=True, slots=True)
class Predictions:
    """The predictions for a batch, a row for each image."""

    labels: npt.NDArray[np.int32]
    """(N,) position of the most probable class."""
    probabilities: npt.NDArray[np.float32]
    """(N, classes), 0 to 1, each row summing to 1."""
    finite: npt.NDArray[np.bool_]
    """(N,) whether every logit of the row is a finite number."""
    added: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    """(N, ...) values of each column that not every run has, by its name, as
    `batchcls.inference.added_answers.AddedAnswers` computes them."""

    def rows(self, chosen: "slice | Sequence[int]") -> "Predictions":
        """The predictions for some of the images."""
        added = {name: values[chosen] for name, values in self.added.items()}
        return Predictions(self.labels[chosen], self.probabilities[chosen], self.finite[chosen], added)


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
