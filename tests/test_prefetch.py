"""Iterators that run ahead give what a plain loop gives, sooner, and end with it."""

import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchcls.prefetch import parallel_map, prefetch
from tests.commandline import PATIENCE_S

SHORT_S = 0.05
"""Long enough for a thread to do what it must not do."""

ITEMS = st.lists(st.integers(), max_size=30)
FEW = st.integers(1, 5)

RunsAhead = Callable[[Iterator[int]], Generator[int]]

EITHER = pytest.mark.parametrize(
    "runs_ahead",
    [lambda source: prefetch(source, 2), lambda source: parallel_map(abs, source, 2)],
    ids=["ahead", "overlapped"],
)


def failing_after(items: list[int]) -> Iterator[int]:
    yield from items
    raise LookupError("the disk is gone")


def drained(coming: Iterator[int]) -> tuple[list[int], LookupError | None]:
    """Every item up to the end or an exception, and that."""
    found: list[int] = []
    try:
        found.extend(coming)
    except LookupError as error:
        return found, error
    return found, None


def until(is_so: Callable[[], bool]) -> None:
    """Return once it is so."""
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.001)


@given(ITEMS, FEW)
def test_running_ahead_gives_every_item_once_in_its_order(items: list[int], depth: int) -> None:
    assert list(prefetch(iter(items), depth)) == items


@given(ITEMS, FEW)
def test_what_is_made_in_several_lanes_comes_once_in_its_order(items: list[int], lanes: int) -> None:
    def make(item: int) -> str:
        time.sleep(0.001 * (item % 3))  # so that a later one is often done first
        return str(item)

    assert list(parallel_map(make, items, lanes)) == [str(item) for item in items]


def test_a_later_item_that_is_done_first_waits_for_its_turn() -> None:
    second_is_done = threading.Event()

    def make(item: int) -> int:
        if item == 0:
            assert second_is_done.wait(PATIENCE_S)
        else:
            second_is_done.set()
        return item

    assert list(parallel_map(make, range(2), 2)) == [0, 1]


@given(ITEMS, FEW)
def test_an_exception_of_what_is_run_ahead_of_comes_where_its_item_would(items: list[int], depth: int) -> None:
    before = set(threading.enumerate())
    coming = prefetch(failing_after(items), depth)

    found, error = drained(coming)

    assert (found, str(error)) == (items, "the disk is gone")
    assert list(coming) == []
    assert set(threading.enumerate()) <= before


@given(ITEMS, FEW)
def test_an_exception_in_finding_items_ends_what_is_made_of_them(items: list[int], lanes: int) -> None:
    before = set(threading.enumerate())
    coming = parallel_map(abs, failing_after(items), lanes)

    found, error = drained(coming)

    assert str(error) == "the disk is gone"
    assert found == [abs(item) for item in items][: len(found)]
    assert list(coming) == []
    assert set(threading.enumerate()) <= before


@given(st.lists(st.booleans(), max_size=30), FEW)
def test_an_exception_in_making_comes_where_its_item_would_and_ends_it(sound: list[bool], lanes: int) -> None:
    before = set(threading.enumerate())

    def make(number: int) -> int:
        if not sound[number]:
            raise LookupError(f"number {number}")
        return number

    coming = parallel_map(make, range(len(sound)), lanes)
    found, error = drained(coming)

    first_bad = [*sound, False].index(False)
    assert found == list(range(first_bad))
    assert str(error) == (f"number {first_bad}" if first_bad < len(sound) else "None")
    assert list(coming) == []
    assert set(threading.enumerate()) <= before


@EITHER
def test_nothing_is_asked_for_before_the_first_item_is(runs_ahead: RunsAhead) -> None:
    before = set(threading.enumerate())
    asked: list[int] = []

    def source() -> Iterator[int]:
        for item in range(3):
            asked.append(item)
            yield item

    unused = runs_ahead(source())
    time.sleep(SHORT_S)
    unused.close()

    assert asked == []
    assert set(threading.enumerate()) <= before


@EITHER
def test_closing_early_leaves_no_thread_and_asks_for_no_more(runs_ahead: RunsAhead) -> None:
    before = set(threading.enumerate())
    asked: list[int] = []

    def endless() -> Iterator[int]:
        for item in count():
            asked.append(item)
            yield item

    coming = runs_ahead(endless())
    assert [next(coming) for _ in range(3)] == [0, 1, 2]
    coming.close()
    then = len(asked)
    time.sleep(SHORT_S)

    assert set(threading.enumerate()) <= before
    assert len(asked) == then
    assert list(coming) == []


def test_items_are_found_one_at_a_time_however_far_ahead() -> None:
    def slow() -> Iterator[int]:
        for item in range(10):
            time.sleep(0.002)  # a generator does not bear a second thread meanwhile
            yield item

    assert list(prefetch(slow(), 4)) == list(range(10))


@pytest.mark.parametrize("depth", [1, 3])
def test_it_runs_so_far_ahead_and_no_further(depth: int) -> None:
    asked: list[int] = []

    def endless() -> Iterator[int]:
        for item in count():
            asked.append(item)
            yield item

    with closing(prefetch(endless(), depth)) as coming:
        for taken in (1, 2, 3):
            next(coming)
            until(lambda: len(asked) >= taken + depth)  # noqa: B023  # it is called at once
            time.sleep(SHORT_S)
            assert len(asked) == taken + depth


@pytest.mark.parametrize("lanes", [1, 2, 4])
def test_so_many_are_made_at_one_time_and_one_more_is_on_its_way(lanes: int) -> None:
    all_at_once = threading.Barrier(lanes)
    changing = threading.Lock()
    asked = taken = working = most = lead = 0

    def source() -> Iterator[int]:
        nonlocal asked, lead
        for item in range(lanes * 6):
            asked += 1
            lead = max(lead, asked - taken)
            yield item

    def make(item: int) -> int:
        nonlocal working, most
        with changing:
            working += 1
            most = max(most, working)
        all_at_once.wait(PATIENCE_S)
        with changing:
            working -= 1
        return item

    for _ in parallel_map(make, source(), lanes):
        taken += 1

    assert taken == lanes * 6
    assert most == lanes
    assert lead == lanes + 1


def test_an_item_is_made_while_the_next_is_waited_for() -> None:
    made = threading.Event()

    def slow() -> Iterator[int]:
        yield 0
        assert made.wait(PATIENCE_S)
        yield 1

    def make(item: int) -> int:
        made.set()
        return item

    assert list(parallel_map(make, slow(), 1)) == [0, 1]


@EITHER
def test_the_next_item_is_on_its_way_while_one_is_used(runs_ahead: RunsAhead) -> None:
    asked = {number: threading.Event() for number in range(4)}

    def source() -> Iterator[int]:
        for number, event in asked.items():
            event.set()
            yield number

    for item in runs_ahead(source()):
        if item + 1 in asked:
            assert asked[item + 1].wait(PATIENCE_S)


def close_while(coming: Generator[int], busy: threading.Event, go_on: threading.Event) -> bool:
    """Close in a thread while something is being made; whether that returned before it was done."""
    assert busy.wait(PATIENCE_S)
    closer = threading.Thread(target=coming.close)
    closer.start()
    closer.join(SHORT_S)
    early = not closer.is_alive()
    go_on.set()
    closer.join(PATIENCE_S)
    assert not closer.is_alive()
    return early


def test_closing_waits_for_the_item_that_is_being_found() -> None:
    before = set(threading.enumerate())
    busy, go_on = threading.Event(), threading.Event()
    done: list[int] = []

    def source() -> Iterator[int]:
        yield 0
        busy.set()
        assert go_on.wait(PATIENCE_S)
        done.append(1)
        yield 1
        done.append(2)

    coming = prefetch(source(), 3)
    assert next(coming) == 0
    early = close_while(coming, busy, go_on)

    assert not early
    assert done == [1]
    assert set(threading.enumerate()) <= before


def test_closing_waits_for_what_is_being_made_and_makes_no_more() -> None:
    before = set(threading.enumerate())
    busy, go_on = threading.Event(), threading.Event()
    made: list[int] = []

    def make(item: int) -> int:
        if item == 1:
            busy.set()
            assert go_on.wait(PATIENCE_S)
        made.append(item)
        return item

    coming = parallel_map(make, count(), 1)
    assert next(coming) == 0
    early = close_while(coming, busy, go_on)

    assert not early
    assert made == [0, 1]
    assert set(threading.enumerate()) <= before
