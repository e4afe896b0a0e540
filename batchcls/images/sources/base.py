"""The protocols of sources and readers of slides."""

from collections import Counter
from collections.abc import Iterator
from typing import Protocol

from batchcls.records import Slide


class Source(Protocol):
    """Lists the slides of one or more places; one iteration yields them while listing continues.

    A source does not read slides, because other processes than the listing one read them too, by the readers of
    `batchcls.images.sources.open_readers` or by `read_slide`.
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
        """All values that the ``root`` of a slide may have, in the order in which the user named the places."""

    def __iter__(self) -> Iterator[Slide]:
        """Every slide once."""

    def waiting(self) -> tuple[str, float] | None:
        """The place that is waited for, and the seconds since then; None if there is none.

        Any thread may call this method.
        """

    def close(self) -> None:
        """Stop listing; calling it twice is harmless."""


class OpenSlide(Protocol):
    """A slide whose bytes can be read in any order, until its reader opens the next one."""

    @property
    def is_regular(self) -> bool:
        """Whether the slide is a regular file, and no FIFO or device, which are not read."""

    @property
    def size_bytes(self) -> int:
        """Size in bytes."""

    @property
    def modified_ns(self) -> int | None:
        """Time of the last change, in nanoseconds since 1970, UTC; None if it is not known."""

    @property
    def first_bytes(self) -> bytes:
        """First bytes of the slide, read when it was opened; usually all bytes of a small file."""

    def read(self, offset: int, length: int) -> bytes:
        """Bytes from ``offset`` on; fewer than ``length`` only where the slide ends.

        Raises:
            OSError: If the slide cannot be read, with the operating system's number.
            TimeoutError: Without a number, if no answer comes in time; the reader cannot be used any more then.
        """


class SlideReader(Protocol):
    """Opens one slide after another, for one thread."""

    def open(self, slide: Slide) -> OpenSlide:
        """The slide, opened.

        Raises:
            OSError: If the slide cannot be opened, with the operating system's number.
            TimeoutError: Without a number, if no answer comes in time; the reader cannot be used any more then.
            DecoderError: If no slide can be read any more.
        """

    def close(self) -> None:
        """End the reader, and wake a thread that waits for an answer; any thread may call this method, also twice."""


class SlideReaders(Protocol):
    """Makes readers, one for each thread; no reader waits for ever."""

    @property
    def peak_memory_bytes(self) -> int:
        """Peak resident memory of the process that reads for the readers, in bytes; known after `close`."""

    def reader(self, timeout_s: float) -> SlideReader:
        """A reader whose calls take at most ``timeout_s`` seconds each.

        Raises:
            DecoderError: If no slide can be read any more.
        """

    def close(self) -> None:
        """End all readers without waiting for answers; calling it twice is harmless."""
