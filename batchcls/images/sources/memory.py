"""Image files that a program holds in memory, as slides, and reading of them."""

from dataclasses import dataclass, field

from batchcls.images.sources.alone import NO_BUFFER_BYTES, AloneGroupReader
from batchcls.records import Slide


@dataclass(frozen=True, slots=True)
class MemorySlide(Slide):
    """An image file in memory; its path is a number that no other slide of one call has, its root is empty."""

    data: bytes = field(default=b"", compare=False, repr=False)
    """Bytes of the file."""


class OpenMemorySlide:
    """A `batchcls.images.sources.base.OpenSlide` in memory."""

    is_regular = True
    modified_ns = None

    def __init__(self, data: bytes) -> None:
        self.first_bytes = data
        self.size_bytes = len(data)

    def read(self, offset: int, length: int) -> bytes:
        return self.first_bytes[offset : offset + length]


class MemoryReaders:
    """A `batchcls.images.sources.base.SlideReaders` of `MemorySlide`, each of which is read alone."""

    group_memory_bytes = NO_BUFFER_BYTES
    peak_memory_bytes = 0

    def reader(self, timeout_s: float) -> "MemoryReader":
        return MemoryReader()

    def group_reader(self, max_pixels: int) -> "AloneGroupReader":
        return AloneGroupReader()

    def close(self) -> None:
        """There is nothing to end."""


class MemoryReader:
    """A `batchcls.images.sources.base.SlideReader` in memory."""

    def open(self, slide: Slide) -> OpenMemorySlide:
        if not isinstance(slide, MemorySlide):
            raise TypeError(f"{slide} is not in memory")
        return OpenMemorySlide(slide.data)

    def close(self) -> None:
        """There is nothing to end."""
