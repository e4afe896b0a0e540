"""What every decoder promises."""

from collections.abc import Generator, Iterable, Sequence
from typing import Protocol

from batchcls.errors import MemoryShortageError
from batchcls.memory import text_of
from batchcls.records import Batch, Postponed, Slide
from batchcls.storage.file_names import printable

_SHOWN = 3


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


def postponed_error(postponed: Sequence[Postponed], remedy: str) -> MemoryShortageError:
    """The error that ends what cannot go on without these files; names some of them."""
    names = ", ".join(f"{printable(file.slide.file)!r} ({text_of(file.needed_bytes)})" for file in postponed[:_SHOWN])
    more = f" and {len(postponed) - _SHOWN:,} more" if len(postponed) > _SHOWN else ""
    return MemoryShortageError(
        f"{len(postponed):,} file{'s need' if len(postponed) > 1 else ' needs'} more memory than there is: "
        f"{names}{more}; {remedy}"
    )
