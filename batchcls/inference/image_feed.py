"""A program's images, taken from its iterable by a thread that nothing else waits for."""

from collections.abc import Iterable, Iterator
from queue import Empty, SimpleQueue
from threading import Semaphore, Thread, current_thread

from batchcls.records import Failure, Slide

_AHEAD = 256
"""Largest number of images that have been taken from the iterable and not been yielded."""
_IDLE_S = 0.25
"""Seconds without an image after which the iteration yields None."""


class ImageFeed(Iterator[Slide | Failure | None]):
    """The slides of ``images``, and None each time that no next one has come for a moment.

    The iterable is the caller's: it may wait for ever, or raise any exception, which is raised where its image would
    have come.
    """

    def __init__(self, images: Iterable[Slide | Failure]) -> None:
        self._images = images
        self._taken: SimpleQueue[Slide | Failure | BaseException | None] = SimpleQueue()
        """Slides, and last the exception of the iterable, or None at its end."""
        self._room = Semaphore(_AHEAD)
        self._ended = False
        self._thread: Thread | None = None

    def __next__(self) -> Slide | Failure | None:
        if self._ended:
            raise StopIteration
        if self._thread is None:
            self._thread = Thread(target=self._take_all, name="images", daemon=True)
            self._thread.start()
        try:
            taken = self._taken.get(timeout=_IDLE_S)
        except Empty:
            return None
        if taken is None:
            self._ended = True
            raise StopIteration
        if isinstance(taken, BaseException):
            self._ended = True
            raise taken
        self._room.release()
        return taken

    @property
    def calls(self) -> bool:
        """Whether the iterable itself is what calls, in its thread."""
        return self._thread is current_thread()

    def close(self) -> None:
        """End the iteration, and the thread at its next image, without waiting for it."""
        self._ended = True
        self._taken.put(None)
        self._room.release()

    def _take_all(self) -> None:
        try:
            for image in self._images:
                self._taken.put(image)
                self._room.acquire()
                if self._ended:
                    return
            self._taken.put(None)
        except BaseException as error:  # noqa: BLE001  # raised where the image would have come
            self._taken.put(error)
        finally:
            self._images = ()
