"""An iterator that runs ahead in a thread of its own."""

import threading
from collections.abc import Iterator
from queue import Full, Queue
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Background(Generic[Item]):
    """Iterates over ``source`` in a thread, at most ``depth`` items ahead; iterate over it once, then close it."""

    def __init__(self, source: Iterator[Item], depth: int) -> None:
        self._source = source
        self._queue: Queue[tuple[Item | None, BaseException | None]] = Queue(depth)
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="decoder", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Item]:
        while True:
            item, error = self._queue.get()
            if error is not None:
                raise error
            if item is None:
                return
            yield item

    def close(self) -> None:
        """Return once the thread has ended; ``source`` must not be waiting for more than its current item."""
        self._closed = True
        self._thread.join()

    def _run(self) -> None:
        try:
            for item in self._source:
                self._put((item, None))
                if self._closed:
                    return
            self._put((None, None))
        except BaseException as error:  # raised where the items are wanted
            self._put((None, error))

    def _put(self, item: tuple[Item | None, BaseException | None]) -> None:
        while not self._closed:
            try:
                return self._queue.put(item, timeout=0.1)
            except Full:
                continue
