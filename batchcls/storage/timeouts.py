"""Calls to file systems that may never answer, with an end to the wait."""

import errno
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

from batchcls.storage.transient_errors import NO_ANSWER

READ_TIMEOUT_S = 300.0
"""How long a file system may take for one answer, unless the user says otherwise."""
T = TypeVar("T")


def call_with_timeout(call: Callable[[], T], timeout_s: float = READ_TIMEOUT_S) -> T:
    """The result of ``call``, which runs in a thread of its own; the thread is left behind if the disk never answers.

    Raises:
        TimeoutError: If the call takes longer than ``timeout_s`` seconds; otherwise whatever ``call`` raises.
    """
    outcome: Future[T] = Future()

    def work() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:  # noqa: BLE001  # raised in the calling thread
            outcome.set_exception(error)

    thread = Thread(target=work, name="image file", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if not outcome.done():
        raise TimeoutError(errno.ETIMEDOUT, f"{NO_ANSWER} {timeout_s:g} s")
    return outcome.result()
