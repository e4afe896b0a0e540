"""File systems that never answer: whoever asks them waits for a time, and no longer."""

import errno
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

from batchcls.records import NO_ANSWER
from batchcls.storage.file_client import READ_TIMEOUT_S

_T = TypeVar("_T")


def with_timeout(read: Callable[[], _T], timeout_s: float = READ_TIMEOUT_S) -> _T:
    """What ``read`` returns or raises; it has a thread of its own, which is left behind where the disk is dead.

    Raises:
        TimeoutError: If that takes longer than ``timeout_s`` seconds.
    """
    outcome: Future[_T] = Future()

    def work() -> None:
        try:
            outcome.set_result(read())
        except BaseException as error:  # noqa: BLE001  # whoever waits raises it
            outcome.set_exception(error)

    thread = Thread(target=work, name="image file", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if not outcome.done():
        raise TimeoutError(errno.ETIMEDOUT, f"{NO_ANSWER} {timeout_s:g} s")
    return outcome.result()
