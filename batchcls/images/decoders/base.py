"""What every decoder promises, and what it is opened with."""

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from batchcls.errors import MemoryShortageError
from batchcls.memory import format_bytes
from batchcls.records import Batch, Postponed, Slide
from batchcls.storage.file_names import printable
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
    """Largest number of pixels of an image; a file whose header says more is refused before memory is taken for it."""
    memory_bytes: int | None = None
    """Most memory for files and images on their way to the engine's size; None: half of what is available."""
    read_timeout_s: float = READ_TIMEOUT_S
    """How long the file system may take for one answer, before the file is given up."""
    device: str = "cpu"
    """The engine's device. The ``dali`` decoder alone decodes on a GPU, and leaves the pixels there."""


class Decoder(Protocol):
    """Turns slides into batches of pixels, reading ahead by itself."""

    def decode(self, slides: Iterable[Slide]) -> Generator[Batch]:
        """Every slide once, in the order in which their bytes arrive.

        A file that cannot be decoded becomes a `Failure` of its batch and costs no other file its place. The
        pixels of a batch belong to the caller. Closing the iterator stops the reading ahead.
        """

    @property
    def peak_memory_bytes(self) -> int:
        """Most memory that the decoder's other processes have had resident together; known when all is decoded."""

    def waiting(self) -> tuple[str, float] | None:
        """The file whose answer has been awaited longest, and for how many seconds; None: no file; from any thread."""

    def stop(self) -> None:
        """Read nothing more, and wait for no file: `decode` ends with what has been read; from any thread."""

    def close(self) -> None:
        """Release threads and buffers; calling it twice is harmless."""


def shortage_error(postponed: Sequence[Postponed], remedy: str) -> MemoryShortageError:
    """The error that ends a command which cannot go on without files that need more memory; names some of them."""
    files = [f"{printable(file.slide.file)!r} ({format_bytes(file.needed_bytes)})" for file in postponed[:_MOST_NAMES]]
    more = f" and {len(postponed) - _MOST_NAMES:,} more" if len(postponed) > _MOST_NAMES else ""
    return MemoryShortageError(
        f"{len(postponed):,} file{'s need' if len(postponed) > 1 else ' needs'} more memory than there is: "
        f"{', '.join(files)}{more}; {remedy}"
    )
