"""The protocol of decoders, and their options."""

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from batchcls.errors import MemoryShortageError
from batchcls.images.sources.base import SlideReaders
from batchcls.records import Batch, Postponed, Slide
from batchcls.storage.file_names import printable
from batchcls.storage.memory import format_bytes
from batchcls.storage.timeouts import READ_TIMEOUT_S

_MOST_NAMES = 3


@dataclass(frozen=True, slots=True)
class DecoderOptions:
    """How a decoder reads and decodes."""

    batch_size: int
    """Largest number of files in one batch; large images make smaller ones."""
    threads: int
    """Number of CPU threads that decode."""
    max_pixels: int
    """Largest number of pixels of an image; files with a larger image are refused before memory is taken for them."""
    memory_bytes: int | None = None
    """Largest memory for files and images until they are resized; None: half of the available memory."""
    read_timeout_s: float = READ_TIMEOUT_S
    """How long the file system may take for one answer, before the file is given up."""
    device: str = "cpu"
    """Device of the engine; only the ``dali`` decoder decodes on a GPU, and then leaves the pixels there."""
    digests: bool = False
    """Whether each slide gets the digest of its file's bytes."""


class Decoder(Protocol):
    """Turns slides into batches of pixels, reading ahead by itself."""

    def decode(self, slides: Iterable[Slide], readers: SlideReaders | None = None) -> Generator[Batch]:
        """Batches that contain every slide once, in the order in which their bytes arrive.

        A file that cannot be decoded becomes a `Failure` in a batch, and does not affect other files. The pixels of a
        batch belong to the caller. Closing the iterator stops reading ahead.

        Args:
            slides: The slides; another thread iterates over them.
            readers: Readers of the slides, which stay open; None: those of files, opened for this call alone.
        """

    def sibling(self, memory_bytes: int) -> "Decoder":
        """Another decoder, which may decode other slides at the same time with the threads and the memory of this one.

        Args:
            memory_bytes: Memory for files that it has read and not decoded yet; one larger file may be read alone.
        """

    @property
    def peak_memory_bytes(self) -> int:
        """Peak resident memory of the decoder's other processes together, in bytes; known after `decode` has ended."""

    def waiting(self) -> tuple[str, float] | None:
        """The file that has been waited for longest, and the seconds since then; None if no file is waited for.

        Any thread may call this method.
        """

    def stop(self) -> None:
        """Stop reading, so that `decode` ends with the files that have been read; any thread may call this method."""

    def close(self) -> None:
        """Release threads and buffers, also those of siblings; calling it twice is harmless."""


def shortage_error(postponed: Sequence[Postponed], remedy: str) -> MemoryShortageError:
    """The error for a command that cannot leave out the files that need more memory than there is.

    Args:
        postponed: Files that need more memory, of which the message names a few.
        remedy: Instruction for the user, the end of the message.
    """
    files = [f"{printable(file.slide.file)!r} ({format_bytes(file.needed_bytes)})" for file in postponed[:_MOST_NAMES]]
    more = f" and {len(postponed) - _MOST_NAMES:,} more" if len(postponed) > _MOST_NAMES else ""
    return MemoryShortageError(
        f"{len(postponed):,} file{'s need' if len(postponed) > 1 else ' needs'} more memory than there is: "
        f"{', '.join(files)}{more}; {remedy}"
    )
