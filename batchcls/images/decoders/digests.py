"""Digests of slides' files as they are now, read as for decoding, and not decoded."""

from collections.abc import Sequence

from batchcls.images.decoders.encoded import Encoded, ReadOptions
from batchcls.images.decoders.read_ahead import ReadAhead
from batchcls.images.formats.refusal import largest_bytes
from batchcls.images.sources import open_readers
from batchcls.images.sources.base import SlideReaders
from batchcls.records import Failure, Slide

_BUDGET_BYTES = 64 << 20


class SlideDigests:
    """Reads slides of any kind, and digests their bytes; for one thread, but for `close` and `waiting`.

    Args:
        max_pixels: Largest number of pixels of an image; larger ones are not read, if their size in bytes says so.
        timeout_s: How long the file system or the network may take for one answer.
    """

    def __init__(self, max_pixels: int, timeout_s: float) -> None:
        # A row tells that the file has been in memory before, so there is room for it, whatever its size.
        largest = largest_bytes(max_pixels)
        self._options = ReadOptions(max_pixels, timeout_s, _BUDGET_BYTES, largest_file_bytes=largest, digests=True)
        self._readers: SlideReaders | None = None
        self._files: ReadAhead | None = None
        self._closed = False

    def __call__(self, slides: Sequence[Slide]) -> dict[Slide, Slide | Failure]:
        """Each slide with the digest of its file; or the failure, whose slide has the digest if all bytes were read.

        Files for which the memory is too small are left out.

        Raises:
            DecoderError: If no slide can be read any more.
        """
        self._readers = self._readers or open_readers()
        digests: dict[Slide, Slide | Failure] = {}
        files = self._files = ReadAhead(slides, self._readers, self._options)
        if self._closed:
            files.close()
        for item in files:
            if isinstance(item, Encoded):
                digests[item.slide] = item.slide
                files.release([item])
            elif isinstance(item, Failure):
                digests[item.slide] = item
        files.close()
        return digests

    def waiting(self) -> tuple[str, float] | None:
        """A file that is waited for, and the seconds since then; None if there is none; from any thread."""
        return self._files.waiting() if self._files else None

    def close(self) -> None:
        """End reading; from any thread, and any number of times."""
        self._closed = True
        if self._files:
            self._files.close()
        if self._readers:
            self._readers.close()
