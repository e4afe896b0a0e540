"""The interface of engines, which every backend implements."""

from typing import Protocol

from batchcls.records import DevicePixels, EngineInfo, Logits, Pixels


class Engine(Protocol):
    """A compiled classifier on one device, ready from construction until close."""

    @property
    def info(self) -> EngineInfo:
        """What the engine takes and answers; a decoder is opened by it."""

    @property
    def batch_size(self) -> int:
        """Number of images that the engine is fastest with; it takes any number."""

    @property
    def lanes(self) -> int:
        """Number of threads that may call `infer` at one time."""

    def infer(self, pixels: Pixels | DevicePixels) -> Logits:
        """Logits of a batch; an image's logits do not depend on the other images.

        Args:
            pixels: (N, H, W, 3) uint8 RGB, H and W as in ``info.preprocess.size_px``, N >= 0; on the host, or on the
                engine's own GPU, where the pixels must stay until this method returns.

        Returns:
            (N, classes) float32 logits on the host, owned by the caller.

        Raises:
            EngineError: If ``pixels`` have another shape or type, or the device fails.
        """

    def close(self) -> None:
        """Release the device; a second call does nothing."""
