"""Iterators that run ahead in threads of their own."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from queue import SimpleQueue
from threading import Event, Semaphore
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def prefetch(source: Iterator[Item], depth: int) -> Generator[Item]:
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


def parallel_map(
    make: Callable[[Item], Made], source: Iterable[Item], lanes: int, stop: Callable[[], None] = lambda: None
) -> Generator[Made]:
    """``make`` of each item, in order, by ``lanes`` threads, while another one waits for the next item.

    At most ``lanes`` + 1 items are on their way. Closing this, or an exception, calls ``stop``, which may end
    ``source``, and returns when the item that is being waited for, and what is being made, is done.
    """
    filler, pool = (
        ThreadPoolExecutor(1, thread_name_prefix="filler"),
        ThreadPoolExecutor(lanes, thread_name_prefix="lane"),
    )
    coming: SimpleQueue[Future[Made] | None] = SimpleQueue()
    room, closed = Semaphore(lanes + 1), Event()

    def fill() -> None:
        try:
            items = iter(source)
            while room.acquire() and not closed.is_set():
                coming.put(pool.submit(make, next(items)))
        except StopIteration:
            pass
        finally:
            coming.put(None)

    try:
        filled = filler.submit(fill)
        while (made := coming.get()) is not None:
            yield made.result()
            room.release()
        filled.result()
    finally:
        closed.set()
        stop()
        room.release()
        filler.shutdown()
        pool.shutdown(cancel_futures=True)


def ticking(source: Generator[Item], seconds: float) -> Generator[Item | None]:
    """The items of ``source``, and None whenever the next one has not come for so many ``seconds``.

    Closing this returns when the item that is being waited for is there.
    """
    end = object()
    pool = ThreadPoolExecutor(1, thread_name_prefix="ticking")
    try:
        while True:
            coming = pool.submit(next, source, end)
            while not wait([coming], seconds).done:
                yield None
            if (item := coming.result()) is end:
                return
            yield item  # type: ignore[misc]  # the sentinel is sorted out above
    finally:
        pool.shutdown()
