"""What every decoder and every engine promises."""

from collections.abc import Generator, Iterable
from typing import Protocol

from batchcls.records import Batch, DevicePixels, EngineInfo, Logits, Pixels, Slide


class Decoder(Protocol):
    """Turns image files into batches of pixels, reading ahead by itself."""

    def decode(self, slides: Iterable[Slide]) -> Generator[Batch]:
        """Decode every slide once, in whatever order their bytes arrive.

        A file that cannot be decoded becomes a `Failure` of its batch and costs no other file its place. The
        pixels of a batch belong to the caller. Closing the iterator stops the reading ahead.
        """

    @property
    def peak_memory_bytes(self) -> int:
        """The most that other processes have had resident for it, all together; known when all is decoded."""

    def waiting(self) -> tuple[str, float] | None:
        """The file that the file system's answer has been awaited for longest, and seconds; from any thread."""

    def stop(self) -> None:
        """Read nothing more, and wait for no file: `decode` ends with what has been read; from any thread."""

    def close(self) -> None:
        """Release threads and buffers; calling it twice is harmless."""


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
