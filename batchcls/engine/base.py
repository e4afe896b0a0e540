"""The interface of engines, which every backend implements."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from batchcls.errors import EngineError
from batchcls.networks.preprocess import Preprocess
from batchcls.records import DevicePixels, Outputs, Pixels


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """Description of an open engine: its input, labels, device, arithmetic, and the files it was built from."""

    name: str
    labels: tuple[str, ...]
    preprocess: Preprocess
    onnx_sha256: str
    checkpoint_sha256: str
    backend: str
    device: str
    precision: str
    """Precision of the computation, by the backend's own name; it may be lower than that of the ONNX file."""
    temperature: float = 1.0
    """Divisor of the trained network's logits."""

    def check_pixels(self, pixels: Pixels | DevicePixels) -> None:
        """Refuse a batch of another shape or type.

        Raises:
            EngineError: If ``pixels`` is not (N, H, W, 3) uint8 with this engine's H and W.
        """
        shape = (*self.preprocess.size_px, 3)
        if pixels.dtype != np.uint8 or pixels.shape[1:] != shape:
            raise EngineError(
                f"engine {self.name!r} takes {('N', *shape)} uint8, this batch is {pixels.shape} {pixels.dtype}"
            )

    def host_pixels(self, pixels: Pixels | DevicePixels) -> Pixels:
        """``pixels`` for an engine that runs on the CPU, checked.

        Raises:
            EngineError: If ``pixels`` has another shape or type than this engine takes, or is on a GPU.
        """
        self.check_pixels(pixels)
        if isinstance(pixels, DevicePixels):
            raise EngineError(f"backend {self.backend!r} takes pixels on the host, these are on a GPU")
        return pixels


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How an engine computes."""

    device: str
    """``cpu``, or ``cuda:N`` for GPU number N."""
    threads: int
    """CPU threads that infer."""
    precision: str | None = None
    """Arithmetic: ``f32``, ``bf16`` or ``f16``, as far as the backend has it; None: the fastest that the device has and
    the manifest allows."""
    batch_size: int | None = None
    """Images that the backend computes at a time, where that is not fixed by a plan (TensorRT), or by the CPU's caches
    (OpenVINO); None: the number that the backend is fastest with. `Engine.infer` takes any number."""
    features: bool = False
    """Whether `Engine.infer` gives features as well, of an engine that has them."""


class Engine(Protocol):
    """A compiled classifier on one device, ready from construction until close."""

    @property
    def info(self) -> EngineInfo:
        """Description of the engine: the images it takes, its labels, and where it runs."""

    @property
    def batch_size(self) -> int:
        """Number of images that the engine is fastest with; it takes any number."""

    @property
    def notes(self) -> Sequence[str]:
        """Notes for the user on how the engine runs on this machine, one line each: what is slower than it could be,
        or what may make answers differ, and the command that mends it."""

    @property
    def lanes(self) -> int:
        """Number of threads that may call `infer` at one time."""

    def infer(self, pixels: Pixels | DevicePixels) -> Outputs:
        """Outputs for a batch; those of an image do not depend on the other images.

        Args:
            pixels: (N, H, W, 3) uint8 RGB, H and W as in ``info.preprocess.size_px``, N >= 0; on the host, or on the
                engine's own GPU, where the pixels must stay until this method returns.

        Returns:
            Logits, and features if the engine was opened with them and has any; owned by the caller.

        Raises:
            EngineError: If ``pixels`` have another shape or type, or the device fails.
        """

    def close(self) -> None:
        """Release the device; a second call does nothing."""
