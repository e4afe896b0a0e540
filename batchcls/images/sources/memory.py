"""Image files that a program holds in memory, as slides, and reading of them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from batchcls.images.sources.base import GroupResult
from batchcls.records import Slide

_NO_BYTES = 1
"""Memory of a group, of which a budget must take something."""


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

    group_memory_bytes = _NO_BYTES
    peak_memory_bytes = 0

    def reader(self, timeout_s: float) -> "MemoryReader":
        return MemoryReader()

    def group_reader(self, max_pixels: int) -> "MemoryGroupReader":
        return MemoryGroupReader()

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


class MemoryGroupReader:
    """A `batchcls.images.sources.base.GroupReader` that leaves every slide to a `MemoryReader`."""

    times_s = (0.01, 0.01)
    """As if a group took one core, so that no second one is opened beside it."""

    def __init__(self) -> None:
        self._ready = os.eventfd(0)
        self._slides: Sequence[Slide] = ()

    def fileno(self) -> int:
        return self._ready

    def start(self, slides: Sequence[Slide], largest_bytes: int) -> None:
        self._slides = slides
        os.eventfd_write(self._ready, 1)

    def position(self) -> int | None:
        return None

    def cut(self, position: int) -> None:
        """No slide takes long."""

    def result(self) -> GroupResult:
        os.eventfd_read(self._ready)
        return GroupResult([], list(self._slides), [])

    def close(self) -> None:
        if self._ready >= 0:
            os.close(self._ready)
            self._ready = -1
