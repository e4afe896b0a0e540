"""An iterator that runs ahead in a thread of its own."""

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


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
