"""The protocols of sources and readers of slides."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import pyarrow as pa

from batchcls.images.formats.inspection import Header
from batchcls.images.servers.group_buffer import GROUP_FILES as GROUP_FILES
from batchcls.records import Slide
from batchcls.storage.shards import Shard
from batchcls.storage.timeouts import READ_TIMEOUT_S

NOTHING_KEPT = pa.schema([])


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """How sources list slides."""

    at_once: bool = True
    """Whether listing begins when the source is opened, instead of with the iteration."""
    timeout_s: float = READ_TIMEOUT_S
    """How long the file system or the network may take for one answer; folders without one are `Source.unlisted`."""
    root: Path | None = None
    """Folder of the relative paths in lists and tables; None: the folder that the list or table is in."""
    allow_remote: bool = False
    """Whether lists and tables may name URLs."""
    keep: tuple[str, ...] = ()
    """Columns of tables that the rows of predictions take over."""
    shard: Shard | None = None
    """Shard whose slides alone are listed; None: all slides."""


class Source(Protocol):
    """Lists the slides of one or more places; one iteration yields them while listing continues.

    A source does not read slides, because other processes than the listing one read them too, by the readers of
    `batchcls.images.sources.open_readers` or by `read_slide`.
    """

    @property
    def count(self) -> int:
        """Number of slides listed so far."""

    @property
    def complete(self) -> bool:
        """Whether the list has ended, so that ``count`` is final."""

    @property
    def skipped(self) -> Counter[str]:
        """Number of files and folders passed over, by reason."""

    @property
    def unlisted(self) -> list[str]:
        """Folders that could not be listed, each with the reason."""

    @property
    def kept(self) -> pa.Schema:
        """Columns of `Slide.kept`: their names and types; empty unless the user names some."""

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


@runtime_checkable
class ChunkedSource(Source, Protocol):
    """A source whose slides come several at a time, those that are known at one time together."""

    def chunks(self) -> Iterator[Sequence[Slide]]:
        """Every slide once, in the order of the iteration; in place of it."""


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


ReadSlide = tuple[Slide, memoryview, Header]
"""A slide with its size and time of change, its bytes, and the header of its image."""


@dataclass(frozen=True, slots=True)
class GroupResult:
    """What became of the slides of a group, each of which is in one of the lists."""

    read: list[ReadSlide]
    """Slides that were read. Their bytes are valid until the reader starts its next group."""
    alone: list[Slide]
    """Slides that a `SlideReader` has to read, because they are refused or large; it tells the reason."""
    again: list[Slide]
    """Slides that have not been read, because the group has become too large, or was cut."""


class GroupReader(Protocol):
    """Reads a group of slides, and after it the next one, while the caller does other work."""

    @property
    def times_s(self) -> tuple[float, float]:
        """CPU time and wall time of reading the last group, in seconds."""

    def fileno(self) -> int:
        """Descriptor that is readable once `result` does not wait."""

    def start(self, slides: Sequence[Slide], largest_bytes: int) -> None:
        """Begin to read a group.

        Args:
            slides: At most `GROUP_FILES` slides.
            largest_bytes: Largest size of a slide in a group; readers may choose a smaller one.

        Raises:
            DecoderError: If no slide can be read any more.
        """

    def position(self) -> int | None:
        """Position of the slide that is being read; -1 if none has been begun; None once all are read.

        Any thread may call this method.
        """

    def cut(self, position: int) -> None:
        """Read no slide after ``position``, and drop the bytes of those before."""

    def result(self) -> GroupResult:
        """What became of the group; waits until it is known.

        Raises:
            DecoderError: If no slide can be read any more.
        """

    def close(self) -> None:
        """End the reader; its memory is freed once no bytes of it are used. Calling it twice is harmless."""


class SlideReaders(Protocol):
    """Makes readers, one for each thread; no reader waits for ever."""

    group_memory_bytes: int
    """Memory that a `GroupReader` takes for the bytes of a group."""

    @property
    def peak_memory_bytes(self) -> int:
        """Peak resident memory of the process that reads for the readers, in bytes; known after `close`."""

    def reader(self, timeout_s: float) -> SlideReader:
        """A reader whose calls take at most ``timeout_s`` seconds each.

        Raises:
            DecoderError: If no slide can be read any more.
        """

    def group_reader(self, max_pixels: int) -> GroupReader:
        """A reader of groups, which leaves images of more than ``max_pixels`` to be read alone.

        Raises:
            DecoderError: If no slide can be read any more.
            OSError: If the system has no more memory or files for another reader.
        """

    def close(self) -> None:
        """End all readers without waiting for answers; calling it twice is harmless."""
