"""Current sizes and times of change of slides that were read another day."""

from collections import deque
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from threading import Thread

from batchcls.errors import DecoderError, SlidesError
from batchcls.images.formats.refusal import RefusedError
from batchcls.images.sources import open_readers
from batchcls.images.sources.base import SlideReaders
from batchcls.images.sources.places import reader_kind
from batchcls.records import Failure, Slide
from batchcls.storage.file_times import FileTimes, FileTimesLookup
from batchcls.storage.transient_errors import NO_ANSWER

_THREADS = 16
"""Number of slides of stores and archives that are opened at the same time."""
_MOST_UNANSWERED = 16
"""Number of slides without an answer in time after which the disk counts as dead."""


class SlideStates:
    """Sizes and times of slides as they are now; those that the listing knows are taken from there. For one thread.

    Args:
        timeout_s: How long the file system or the network may take for one answer.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._files: FileTimesLookup | None = None
        self._readers: SlideReaders | None = None
        self._unanswered = 0
        self._closed = False

    def __call__(self, slides: Sequence[Slide]) -> list[Slide | Failure]:
        """Each slide with its size and time of change; the failure of a slide whose state cannot be determined.

        Raises:
            SlidesError: If too many slides have no answer in time.
            DecoderError: If no slide can be looked up any more.
        """
        states: list[Slide | Failure] = list(slides)
        unknown = [number for number, slide in enumerate(slides) if slide.size_bytes is None]
        files = [number for number in unknown if reader_kind(slides[number]) == "files"]
        others = sorted(set(unknown).difference(files))
        for number, state in zip(files, self._file_states([slides[number] for number in files]), strict=True):
            states[number] = state
        for number, state in zip(others, self._opened_states([slides[number] for number in others]), strict=True):
            states[number] = state
        return states

    def waiting(self) -> tuple[str, float] | None:
        """A file that is waited for, and the seconds since then; None if there is none; from any thread."""
        return self._files.waiting() if self._files else None

    def close(self) -> None:
        """End every look-up; from any thread, and any number of times."""
        self._closed = True
        if self._files:
            self._files.close()
        if self._readers:
            self._readers.close()

    def _file_states(self, slides: Sequence[Slide]) -> list[Slide | Failure]:
        if not slides:
            return []
        if self._files is None:
            self._files = FileTimesLookup(self._timeout_s)
            if self._closed:  # meanwhile, by another thread
                self._files.close()
        times = self._files([slide.file for slide in slides])
        return [self._state(slide, answer) for slide, answer in zip(slides, times, strict=True)]

    def _opened_states(self, slides: Sequence[Slide]) -> list[Slide | Failure]:
        if not slides:
            return []
        self._readers = readers = self._readers or open_readers()
        waiting = deque(enumerate(slides))
        answers: dict[int, FileTimes | Exception] = {}

        def open_all() -> None:
            with closing(readers.reader(self._timeout_s)) as reader:
                while waiting and not self._closed:
                    number, slide = waiting.popleft()
                    try:
                        file = reader.open(slide)
                        answers[number] = FileTimes(file.size_bytes, file.modified_ns)
                    except (OSError, RefusedError, DecoderError) as error:
                        answers[number] = error
                        if isinstance(error, TimeoutError):
                            return

        while waiting:
            threads = [Thread(target=open_all, name="states", daemon=True) for _ in range(min(_THREADS, len(waiting)))]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            if self._closed:
                raise DecoderError("looking up slides has been ended")
        return [self._state(slide, answers[number]) for number, slide in enumerate(slides)]

    def _state(self, slide: Slide, answer: FileTimes | Exception) -> Slide | Failure:
        if isinstance(answer, FileTimes):
            return replace(slide, size_bytes=answer.size_bytes, modified_ns=answer.modified_ns)
        if isinstance(answer, RefusedError):
            return Failure(slide, *answer.details)
        if isinstance(answer, FileNotFoundError):
            return Failure(slide, "missing", "it is gone, or a link that leads nowhere")
        if isinstance(answer, TimeoutError) and answer.errno is None:
            self._unanswered += 1
            if self._unanswered >= _MOST_UNANSWERED:
                raise SlidesError(
                    f"{self._unanswered} files gave no answer in {self._timeout_s:g} s, the last is {slide.file!r}; "
                    "every row is kept: run the same command again once the disk or the network works again"
                )
            return Failure(slide, "unreadable", f"{NO_ANSWER} {self._timeout_s:g} s")
        if isinstance(answer, OSError):
            return Failure(slide, "unreadable", answer.strerror or str(answer))
        raise answer
