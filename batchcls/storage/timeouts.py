"""Calls to file systems that may never answer, with an end to the wait."""

import errno
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

from batchcls.storage.transient_errors import NO_ANSWER

READ_TIMEOUT_S = 300.0
"""How long a file system may take for one answer, unless the user says otherwise."""
_T = TypeVar("_T")


def call_with_timeout(call: Callable[[], _T], timeout_s: float = READ_TIMEOUT_S) -> _T:
    """What ``call`` returns or raises; it runs in a thread of its own, which is left behind where the disk is dead.

    Raises:
        TimeoutError: If it takes longer than ``timeout_s`` seconds.
    """
    outcome: Future[_T] = Future()

    def work() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:  # noqa: BLE001  # whoever waits raises it
            outcome.set_exception(error)

    thread = Thread(target=work, name="image file", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if not outcome.done():
        raise TimeoutError(errno.ETIMEDOUT, f"{NO_ANSWER} {timeout_s:g} s")
    return outcome.result()
