"""What every source promises: a list of slides, and the bytes of each."""

from collections import Counter
from collections.abc import Iterator
from typing import Protocol

from batchcls.records import Slide


class Source(Protocol):
    """The slides of one or more places, listed while the first of them are classified already; iterate over it once.

    A source lists in one process, and the bytes are read in others too, so both come by ways of their own: whatever a
    source lists, the readers of `batchcls.images.sources.open_readers` open, and `read_slide` reads.
    """

    count: int
    """Number of slides listed so far."""
    complete: bool
    """Whether the list has ended, so that ``count`` is final."""
    skipped: Counter[str]
    """Number of files and folders passed over, by reason."""
    unlisted: list[str]
    """Folders that could not be listed, each with the reason."""

    @property
    def roots(self) -> tuple[str, ...]:
        """Every place that a slide's ``root`` may name, in the order that the user named them."""

    def __iter__(self) -> Iterator[Slide]:
        """Every slide once."""

    def waiting(self) -> tuple[str, float] | None:
        """The place whose answer is awaited, and for how many seconds; None if there is none; from any thread."""

    def close(self) -> None:
        """Stop listing; calling it twice is harmless."""


class OpenSlide(Protocol):
    """A slide whose bytes can be read in any order, until its reader opens the next one."""

    @property
    def is_regular(self) -> bool:
        """Whether it is a file, and not a FIFO or a device, of which nothing is read."""

    @property
    def size_bytes(self) -> int:
        """Size in bytes."""

    @property
    def modified_ns(self) -> int | None:
        """Time of the last change, in nanoseconds since 1970, UTC; None if it is not known."""

    @property
    def first_bytes(self) -> bytes:
        """The bytes that came with the opening, from the first one on; of small files usually all."""

    def read(self, offset: int, length: int) -> bytes:
        """Bytes from ``offset`` on; fewer than ``length`` only where the slide ends.

        Raises:
            OSError: As by the operating system.
            TimeoutError: As by `SlideReader.open`.
        """


class SlideReader(Protocol):
    """Opens one slide after another, for one thread."""

    def open(self, slide: Slide) -> OpenSlide:
        """The slide, opened.

        Raises:
            OSError: If it cannot be opened, with the operating system's number.
            TimeoutError: Without a number, if no answer comes in time; the reader is of no use then.
            DecoderError: If nothing can be read any more, whatever the slide.
        """

    def close(self) -> None:
        """Wake the thread that waits for an answer, from any other thread; calling it twice is harmless."""


class SlideReaders(Protocol):
    """Makes readers, one for each thread that reads; every wait of theirs has an end."""

    @property
    def peak_memory_bytes(self) -> int:
        """Most memory that another process has had resident for the readers; known once this is closed."""

    def reader(self, timeout_s: float) -> SlideReader:
        """A reader, of which each answer may take so many seconds.

        Raises:
            DecoderError: If nothing can be read any more.
        """

    def close(self) -> None:
        """End the reading, and wait for no answer; calling it twice is harmless."""
