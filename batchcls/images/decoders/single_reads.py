"""Reading of slides one at a time, in threads: the large, the refused and the unusual ones, with the reason of each."""

import errno
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from queue import SimpleQueue
from time import monotonic

from batchcls.errors import DecoderError
from batchcls.images.decoders.encoded import Encoded, HeldMemory, ReadOptions, content_digest
from batchcls.images.decoders.read_budget import ReadBudget, ReadingClosedError
from batchcls.images.formats.byte_extent import image_end
from batchcls.images.formats.inspection import examine
from batchcls.images.formats.refusal import RefusedError, check_file, largest_bytes
from batchcls.images.formats.signatures import format_of
from batchcls.images.sources.base import OpenSlide, SlideReader, SlideReaders
from batchcls.images.sources.places import reader_kind
from batchcls.records import Failure, Postponed, Slide
from batchcls.storage.memory import read_budget_bytes
from batchcls.storage.transient_errors import NO_ANSWER

_LEAST_COST_BYTES = 64 << 10
"""Smallest cost of a file in the budget, so that the number of small files is bounded too."""
_THREADS = 32
"""Largest number of threads, which mostly wait."""
_SHORT_BYTES = 64 << 20
"""Smallest amount of memory that is taken to be missing after a MemoryError."""
_PIECE_BYTES = 1 << 20
_OUT_OF_FILES = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS))
"""Error numbers of failures to open a file that are no fault of the file."""

Done = Encoded | Failure | Postponed


class SingleReads:
    """Reads each slide by itself, and hands it over with its bytes, or with the reason why it has none.

    Args:
        readers: Makes a reader for each thread.
        options: Limits of reading.
        budget: Memory for the bytes.
        done: Takes each slide that has been read, and an exception that is no fault of a slide; called in any thread.
    """

    def __init__(
        self,
        readers: SlideReaders,
        options: ReadOptions,
        budget: ReadBudget,
        done: Callable[[Done | BaseException], None],
    ) -> None:
        self._readers = readers
        self._options = options
        self._budget = budget
        self._done = done
        self._closed = False
        self._slides: SimpleQueue[Slide | None] = SimpleQueue()
        self._counting = threading.Lock()
        self._pending = 0
        """Number of slides that have not been handed over."""
        self._threads = 0
        self._open_readers: dict[int, SlideReader] = {}
        """Reader of each thread, by the number of the thread."""
        self._waiting: dict[int, tuple[str, float]] = {}
        """File that a thread waits for, and monotonic time of the wait's beginning, by the number of the thread."""

    def read(self, slide: Slide) -> None:
        """Read one more slide, in a thread that is idle or new; to be called by one thread."""
        with self._counting:
            self._pending += 1
        self._slides.put(slide)
        if self._threads < min(self._pending, _THREADS):
            self._threads += 1
            threading.Thread(target=self._read_all, name=f"reader-{self._threads}", daemon=True).start()

    @property
    def busy(self) -> bool:
        """Whether a slide is being read."""
        return self._pending > 0

    def waiting(self) -> tuple[str, float] | None:
        """The file that has been waited for longest, and the seconds since then; None if no file is waited for."""
        longest = min(list(self._waiting.values()), key=lambda wait: wait[1], default=None)
        return longest and (longest[0], monotonic() - longest[1])

    def close(self) -> None:
        """End every thread without waiting for it; calling it twice is harmless."""
        self._closed = True
        for _ in range(_THREADS):
            self._slides.put(None)
        for reader in list(self._open_readers.values()):
            reader.close()

    def _read_all(self) -> None:
        """Read slides until there are no more; runs in each thread."""
        number = threading.get_ident()
        try:
            self._open_readers[number] = self._readers.reader(self._options.timeout_s)
            while not self._closed and (slide := self._slides.get()) is not None:
                result = self._read(number, slide)
                with self._counting:
                    self._pending -= 1
                self._done(result)
        except ReadingClosedError:
            pass
        except BaseException as error:  # noqa: BLE001  # raised where the files are taken
            if not self._closed:
                self._done(error)
        finally:
            self._waiting.pop(number, None)
            with suppress(KeyError):
                self._open_readers.pop(number).close()

    def _read(self, number: int, slide: Slide) -> Done:
        cost = 0
        self._waiting[number] = (slide.path, monotonic())
        try:
            file = self._open_readers[number].open(slide)
            slide = replace(slide, size_bytes=file.size_bytes, modified_ns=file.modified_ns)
            length = self._image_length(slide, file)
            check_file(length, largest_bytes(self._options.max_pixels), is_regular=file.is_regular)
            if length > (self._options.largest_file_bytes or self._options.budget_bytes):
                format_of(slide.path, file.first_bytes)  # refuses a file that is no image, instead of postponing it
                return Postponed(slide, read_budget_bytes(length))
            self._waiting.pop(number)  # waiting for the budget is no waiting for the file system
            self._budget.take(max(length, _LEAST_COST_BYTES))
            cost = max(length, _LEAST_COST_BYTES)
            self._waiting[number] = (slide.path, monotonic())
            data = file.read(0, length)
            if self._options.digests:
                slide = replace(slide, digest=content_digest(data, _rest(file, length)))
            header = examine(slide.path, data, self._options.max_pixels)
            return Encoded(slide, data, header, HeldMemory(1, lambda: self._budget.give_back(cost)))
        except MemoryError:
            self._budget.give_back(cost)
            return Postponed(slide, read_budget_bytes(max(slide.size_bytes or 0, _SHORT_BYTES)))
        except (RefusedError, OSError) as error:
            if self._closed:
                raise ReadingClosedError from error
            self._budget.give_back(cost)
            return self._failure(number, slide, error)
        finally:
            self._waiting.pop(number, None)

    def _image_length(self, slide: Slide, file: OpenSlide) -> int:
        """Bytes of the image at the beginning of a file; of a huge object all, for a search would read most of it."""
        is_huge = file.size_bytes > largest_bytes(self._options.max_pixels)
        if is_huge and reader_kind(slide) == "objects":
            return file.size_bytes
        return image_end(file.size_bytes, file.read)

    def _failure(self, number: int, slide: Slide, error: RefusedError | OSError) -> Failure:
        """The failure of a slide that could not be read, or is no image.

        Raises:
            DecoderError: If the error is no fault of the file.
        """
        if isinstance(error, RefusedError):
            return Failure(slide, *error.details)
        if (
            isinstance(error, TimeoutError) and error.errno is None
        ):  # no answer in time: the file system's own errors have a number
            self._open_readers[number].close()
            self._open_readers[number] = self._readers.reader(self._options.timeout_s)
            return no_answer(slide, self._options.timeout_s)
        if isinstance(error, FileNotFoundError):
            return Failure(slide, "missing", "it is gone, or a link that leads nowhere")
        if error.errno in _OUT_OF_FILES:
            raise DecoderError(
                f"{slide.file!r} could not be opened: {error.strerror}, which is no fault of the file; every finished "
                "part is kept: free some (ulimit -n, memory), then run the same command again"
            ) from error
        return Failure(slide, "unreadable", error.strerror or str(error))


def _rest(file: OpenSlide, offset: int) -> Iterator[bytes]:
    """The bytes of a file from ``offset`` on, behind the end of its image, a piece at a time."""
    while offset < file.size_bytes and (part := file.read(offset, min(_PIECE_BYTES, file.size_bytes - offset))):
        yield part
        offset += len(part)


def no_answer(slide: Slide, timeout_s: float) -> Failure:
    """The failure of a slide for which the file system has not answered in time."""
    return Failure(slide, "unreadable", f"{NO_ANSWER} {timeout_s:g} s")
