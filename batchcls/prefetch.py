"""Iterators whose next items are computed by other threads, ahead of their consumer."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from queue import SimpleQueue
from threading import Event, Semaphore
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def prefetch(source: Iterator[Item], depth: int) -> Generator[Item]:
    """The items of ``source``, of which up to ``depth`` are computed ahead by one thread.

    An exception of ``source`` is raised where its item would have come. Closing the generator waits for the item
    that is being computed.
    """
    end = object()
    pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
    try:
        pending = deque(pool.submit(next, source, end) for _ in range(depth))
        while (item := pending.popleft().result()) is not end:
            pending.append(pool.submit(next, source, end))
            yield item  # type: ignore[misc]  # the loop has ended for the sentinel
    finally:
        pool.shutdown(cancel_futures=True)


def parallel_map(
    function: Callable[[Item], Result], source: Iterable[Item], lanes: int, stop: Callable[[], None] = lambda: None
) -> Generator[Result]:
    """``function`` of each item, in order, by ``lanes`` threads, while one more thread waits for the next item.

    At most ``lanes`` + 1 items are in progress. Closing the generator, or an exception, calls ``stop``, and waits
    for every item that is in progress.

    Args:
        stop: Function that ends ``source`` early, so that closing does not wait for its next item.
    """
    feeder = ThreadPoolExecutor(1, thread_name_prefix="feeder")
    pool = ThreadPoolExecutor(lanes, thread_name_prefix="lane")
    pending: SimpleQueue[Future[Result] | None] = SimpleQueue()
    room, closed = Semaphore(lanes + 1), Event()

    def feed() -> None:
        try:
            items = iter(source)
            while room.acquire() and not closed.is_set():
                pending.put(pool.submit(function, next(items)))
        except StopIteration:
            pass
        finally:
            pending.put(None)

    try:
        feeding = feeder.submit(feed)
        while (result := pending.get()) is not None:
            yield result.result()
            room.release()
        feeding.result()
    finally:
        closed.set()
        stop()
        room.release()
        feeder.shutdown()
        pool.shutdown(cancel_futures=True)


def poll(source: Generator[Item], seconds: float) -> Generator[Item | None]:
    """The items of ``source``, and None each time that the next item has not come within ``seconds``.

    Closing the generator waits for the next item.
    """
    end = object()
    pool = ThreadPoolExecutor(1, thread_name_prefix="poll")
    try:
        while True:
            pending = pool.submit(next, source, end)
            while not wait([pending], seconds).done:
                yield None
            if (item := pending.result()) is end:
                return
            yield item  # type: ignore[misc]  # the loop has ended for the sentinel
    finally:
        pool.shutdown()
