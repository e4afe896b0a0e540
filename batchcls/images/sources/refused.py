"""Readers of slides that the source forbids to read: each has its reason instead of bytes."""

from typing import NoReturn

from batchcls.images.formats.refusal import RefusedError
from batchcls.images.sources.alone import NO_BUFFER_BYTES, AloneGroupReader
from batchcls.records import Slide


class RefusedReaders:
    """A `batchcls.images.sources.base.SlideReaders` of slides with a `Slide.refusal`."""

    group_memory_bytes = NO_BUFFER_BYTES
    peak_memory_bytes = 0

    def reader(self, timeout_s: float) -> "RefusedReader":
        return RefusedReader()

    def group_reader(self, max_pixels: int) -> AloneGroupReader:
        return AloneGroupReader()

    def close(self) -> None:
        """There is nothing to end."""


class RefusedReader:
    """A `batchcls.images.sources.base.SlideReader` that opens no slide."""

    def open(self, slide: Slide) -> NoReturn:
        raise RefusedError("unreadable", slide.refusal or "")

    def close(self) -> None:
        """There is nothing to end."""
