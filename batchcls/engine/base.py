"""What every engine promises."""

from typing import Protocol

from batchcls.records import DevicePixels, EngineInfo, Logits, Pixels


class Engine(Protocol):
    """A compiled classifier on one device, ready from construction until close."""

    @property
    def info(self) -> EngineInfo:
        """What the engine eats and answers; the decoder is built from it."""

    @property
    def batch_size(self) -> int:
        """Images at a time that it is fastest with; it takes any number."""

    @property
    def lanes(self) -> int:
        """How many threads may call `infer` at one time."""

    def infer(self, pixels: Pixels | DevicePixels) -> Logits:
        """Score one batch; an image's logits do not depend on what it is batched with.

        Args:
            pixels: (N, H, W, 3) uint8 RGB, H and W as in ``info.preprocess.size_px``, N >= 0; on the host, or on the
                engine's own GPU, where they are read until this returns.

        Returns:
            (N, classes) float32 logits on the host, owned by the caller.

        Raises:
            EngineError: If the shape or the type is another, or the device fails.
        """

    def close(self) -> None:
        """Release the device; calling it twice is harmless."""
