"""Slides that a thread of its own draws from an iterable, ahead of those who take them."""

from collections import deque
from collections.abc import Iterable
from threading import Condition, Thread

from batchcls.records import Slide


class DrawnSlides:
    """The slides of an iterable, drawn ahead by a thread, so that a listing that stands still holds up nobody.

    Args:
        slides: Slides to draw.
        most: Number of slides that are drawn and not yet taken.
    """

    def __init__(self, slides: Iterable[Slide], most: int) -> None:
        self.most = most
        self._slides = slides
        self._drawn: deque[Slide] = deque()
        self._ended = False
        """Whether no more slides will be drawn."""
        self._error: BaseException | None = None
        """Exception of ``slides``."""
        self._changed = Condition()
        # A daemon, because a listing may never answer.
        Thread(target=self._draw, name="drawing slides", daemon=True).start()

    def __len__(self) -> int:
        return len(self._drawn)

    @property
    def ended(self) -> bool:
        """Whether every slide has been taken."""
        return self._ended and not self._drawn

    def wait(self, timeout_s: float | None = None) -> None:
        """Return once a slide is there, or no more will be, or after ``timeout_s`` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._drawn, timeout_s)

    def take(self, count: int, characters: int) -> list[Slide]:
        """Up to ``count`` of the slides that have been drawn, until their paths have ``characters`` characters."""
        portion: list[Slide] = []
        with self._changed:
            while self._drawn and len(portion) < count and characters > 0:
                portion.append(self._drawn.popleft())
                characters -= len(portion[-1].path)
            self._changed.notify_all()
        return portion

    def check(self) -> None:
        """Raise the exception that ended ``slides`` early, if there was one."""
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Draw no more slides, and drop those that have been drawn; never waits for the iterable."""
        with self._changed:
            self._ended = True
            self._drawn.clear()
            self._changed.notify_all()

    def _draw(self) -> None:
        try:
            for slide in self._slides:
                with self._changed:
                    self._changed.wait_for(lambda: self._ended or len(self._drawn) < self.most)
                    if self._ended:
                        return
                    self._drawn.append(slide)
                    self._changed.notify_all()
        except BaseException as error:  # noqa: BLE001  # raised by `check`
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()
