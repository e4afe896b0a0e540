"""Readers of slides of any kind, which hand each slide to the readers of its kind."""

from collections.abc import Callable, Mapping, Sequence
from select import EPOLLIN, epoll
from threading import Lock

from batchcls.images.servers.group_buffer import BUFFER_BYTES
from batchcls.images.sources.base import GroupReader, GroupResult, OpenSlide, SlideReader, SlideReaders
from batchcls.images.sources.places import ReaderKind, reader_kind
from batchcls.records import Slide


class AnyReaders:
    """A `batchcls.images.sources.base.SlideReaders` for all kinds of slides; readers of a kind are made when needed.

    Args:
        openers: What makes the readers of each kind.
    """

    group_memory_bytes = BUFFER_BYTES

    def __init__(self, openers: Mapping[ReaderKind, Callable[[], SlideReaders]]) -> None:
        self._openers = openers
        self._opened: dict[ReaderKind, SlideReaders] = {}
        self._opening = Lock()

    @property
    def peak_memory_bytes(self) -> int:
        return sum(readers.peak_memory_bytes for readers in self._opened.values())

    def of_kind(self, kind: ReaderKind) -> SlideReaders:
        """The readers of a kind; any thread may call this method."""
        with self._opening:
            if kind not in self._opened:
                self._opened[kind] = self._openers[kind]()
            return self._opened[kind]

    def reader(self, timeout_s: float) -> "AnyReader":
        return AnyReader(self, timeout_s)

    def group_reader(self, max_pixels: int) -> "AnyGroupReader":
        return AnyGroupReader(self, max_pixels)

    def close(self) -> None:
        for readers in self._opened.values():
            readers.close()


class AnyReader:
    """A `batchcls.images.sources.base.SlideReader` for all kinds of slides."""

    def __init__(self, readers: AnyReaders, timeout_s: float) -> None:
        self._readers = readers
        self._timeout_s = timeout_s
        self._opened: dict[ReaderKind, SlideReader] = {}

    def open(self, slide: Slide) -> OpenSlide:
        kind = reader_kind(slide)
        if kind not in self._opened:
            self._opened[kind] = self._readers.of_kind(kind).reader(self._timeout_s)
        return self._opened[kind].open(slide)

    def close(self) -> None:
        for reader in list(self._opened.values()):
            reader.close()


class AnyGroupReader:
    """A `batchcls.images.sources.base.GroupReader` for groups of any kind, each of which has slides of one kind."""

    def __init__(self, readers: AnyReaders, max_pixels: int) -> None:
        self._readers = readers
        self._max_pixels = max_pixels
        self._ready = epoll()
        """Descriptor that is readable once the reader's descriptor is."""
        self._kind: ReaderKind | None = None
        self._reader: GroupReader | None = None
        """Reader of the last group's kind, which alone has a buffer."""

    @property
    def times_s(self) -> tuple[float, float]:
        return self._reader.times_s if self._reader else (0.0, 0.0)

    def fileno(self) -> int:
        return self._ready.fileno()

    def start(self, slides: Sequence[Slide], largest_bytes: int) -> None:
        kind = reader_kind(slides[0])
        if kind != self._kind:
            if self._reader:
                self._ready.unregister(self._reader.fileno())
                self._reader.close()
            self._reader = self._readers.of_kind(kind).group_reader(self._max_pixels)
            self._kind = kind
            self._ready.register(self._reader.fileno(), EPOLLIN)
        if self._reader:
            self._reader.start(slides, largest_bytes)

    def position(self) -> int | None:
        return self._reader.position() if self._reader else None

    def cut(self, position: int) -> None:
        if self._reader:
            self._reader.cut(position)

    def result(self) -> GroupResult:
        return self._reader.result() if self._reader else GroupResult([], [], [])

    def close(self) -> None:
        if self._reader:
            self._reader.close()
        self._ready.close()
