"""Each slide of a ledger is answered once, whoever is lost."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from batchcls.inference.drawn_slides import DrawnSlides
from batchcls.inference.slide_ledger import SlideLedger
from batchcls.records import BatchResult, Failure, Predictions, Slide

CHARACTERS = 1 << 20


def result_of(slides: list[Slide]) -> BatchResult:
    """Predictions for all slides but each third, which is a failure."""
    predicted = [slide for number, slide in enumerate(slides) if number % 3 != 2]
    count = len(predicted)
    return BatchResult(
        predicted,
        [(1, 1)] * count,
        Predictions(np.zeros(count, np.int32), np.ones((count, 2), np.float32), np.ones(count, np.bool_)),
        [Failure(slide, "empty", "nothing") for slide in slides[2::3]],
    )


def answered(result: BatchResult) -> list[str]:
    assert len(result.slides) == len(result.sizes) == len(result.predictions.labels)
    return [slide.path for slide in [*result.slides, *(failure.slide for failure in result.failures)]]


def ledger_of(count: int) -> SlideLedger:
    """The ledger of so many slides, all of which have been drawn."""
    drawn = DrawnSlides([Slide("/s", str(number)) for number in range(count)], count + 1)
    while len(drawn) < count:
        drawn.wait()
    return SlideLedger(drawn)


@given(
    count=st.integers(0, 60),
    moves=st.lists(st.tuples(st.sampled_from(["take", "settle", "again", "lose"]), st.sampled_from("abc"))),
    portion=st.integers(1, 20),
)
def test_every_slide_is_answered_once(count: int, moves: list[tuple[str, str]], portion: int) -> None:
    ledger = ledger_of(count)
    held: dict[str, list[Slide]] = {name: [] for name in "abc"}
    before: list[Slide] = []
    rows: list[str] = []

    def move(kind: str, name: str) -> None:
        nonlocal before
        if kind == "take":
            held[name] += ledger.take(name, portion, CHARACTERS)
        elif kind == "settle":
            before, held[name] = held[name], []
            rows.extend(answered(ledger.settle(name, result_of(before))))
        elif kind == "again":  # an answer that comes twice, or of one who is lost
            assert (
                answered(ledger.settle(name, result_of([slide for slide in before if slide not in held[name]]))) == []
            )
        else:
            held[name] = []
            rows.extend(failure.slide.path for failure in ledger.lose(name))

    for kind, name in moves:
        move(kind, name)
    while not ledger.complete:
        for name in "abc":
            move("take", name)
            move("settle", name)

    assert Counter(rows) == Counter(map(str, range(count)))


@given(count=st.integers(1, 100), poison=st.sets(st.integers(0, 99), max_size=3), portion=st.integers(1, 64))
def test_only_slides_that_end_their_holder_are_given_up(count: int, poison: set[int], portion: int) -> None:
    ledger = ledger_of(count)
    deadly = {str(number) for number in poison if number < count}
    rows: dict[str, str] = {}
    losses = 0

    while not ledger.complete:
        for name in "ab":
            slides = ledger.take(name, portion, CHARACTERS)
            if deadly & {slide.path for slide in slides}:
                losses += 1
                rows |= {failure.slide.path: failure.text for failure in ledger.lose(name)}
            else:
                rows |= dict.fromkeys(answered(ledger.settle(name, result_of(slides))), "")

    assert sorted(rows) == sorted(map(str, range(count)))
    assert {path for path, text in rows.items() if text} == deadly
    assert all(rows[path].startswith("corrupt: each of ") for path in deadly)
    assert losses <= 3 + 8 * len(deadly) + 3 * len(deadly)
