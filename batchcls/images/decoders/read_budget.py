"""The memory for files that have been read and not decoded yet."""

import threading
from collections.abc import Callable


class ReadingClosedError(Exception):
    """The reading has been closed."""


class ReadBudget:
    """A number of bytes that readers take and give back; one reader may take more if nothing else is taken.

    Args:
        size_bytes: The whole budget.
        on_shortage: Called when a thread begins to wait for memory, so that memory is given back.
    """

    def __init__(self, size_bytes: int, on_shortage: Callable[[], None]) -> None:
        self.size_bytes = size_bytes
        self.waiting = 0
        """Number of threads that wait for memory."""
        self._on_shortage = on_shortage
        self._taken_bytes = 0
        self._closed = False
        self._changed = threading.Condition()

    def try_take(self, cost_bytes: int) -> bool:
        """Take memory if so much is free and no thread waits for memory."""
        with self._changed:
            if self.waiting or not self._fits(cost_bytes):
                return False
            self._taken_bytes += cost_bytes
            return True

    def take(self, cost_bytes: int) -> None:
        """Take memory, and wait until so much is free.

        Raises:
            ReadingClosedError: If the budget is closed meanwhile.
        """
        with self._changed:
            if not self._fits(cost_bytes):
                self.waiting += 1
                self._on_shortage()
                try:
                    self._changed.wait_for(lambda: self._closed or self._fits(cost_bytes))
                finally:
                    self.waiting -= 1
            if self._closed:
                raise ReadingClosedError
            self._taken_bytes += cost_bytes

    def give_back(self, cost_bytes: int) -> None:
        """Give back memory that has been taken."""
        with self._changed:
            self._taken_bytes -= cost_bytes
            self._changed.notify_all()

    def close(self) -> None:
        """Wake every thread that waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _fits(self, cost_bytes: int) -> bool:
        return not self._taken_bytes or self._taken_bytes + cost_bytes <= self.size_bytes
