"""Iterators that run ahead in threads of their own."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def ahead(source: Iterator[Item], depth: int) -> Generator[Item]:
    """The items of ``source``, which is at most ``depth`` of them ahead; its exceptions come where their item would.

    Closing this returns when the item that is being made is done.
    """
    end = object()
    pool = ThreadPoolExecutor(1, thread_name_prefix="ahead")
    try:
        coming = deque(pool.submit(next, source, end) for _ in range(depth))
        while (item := coming.popleft().result()) is not end:
            coming.append(pool.submit(next, source, end))
            yield item  # type: ignore[misc]  # the sentinel is sorted out above
    finally:
        pool.shutdown(cancel_futures=True)


def overlapped(make: Callable[[Item], Made], source: Iterable[Item], lanes: int) -> Generator[Made]:
    """``make`` of each item, in order, by ``lanes`` threads, while the next item is being waited for.

    At most ``lanes`` + 1 items are on their way. Closing this returns when what is being made is done.
    """
    pool = ThreadPoolExecutor(lanes, thread_name_prefix="lane")
    coming: deque[Future[Made]] = deque()
    try:
        for item in source:
            coming.append(pool.submit(make, item))
            if len(coming) > lanes:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
