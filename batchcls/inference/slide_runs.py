"""Consecutive slides of one kind, which one pipeline reads, among slides and failures of any kind."""

from collections.abc import Iterable, Iterator

from batchcls.inference.input_order import InputOrder
from batchcls.records import Failure, Slide

FAILURES = 64
"""Number of failures in a row that end a run of slides, and whose rows are given together."""


class RunKind:
    """The kind of the run of slides that the next slide belongs to; a few failures belong to any run."""

    def __init__(self) -> None:
        self._kind: type = Failure
        self._failures = 0

    def __call__(self, slide: Slide | Failure | None) -> type:
        if isinstance(slide, Failure):
            self._failures += 1
            self._kind = self._kind if self._failures < FAILURES else Failure
        elif slide is not None:
            self._failures = 0
            self._kind = type(slide)
        return self._kind


def without_failures(run: Iterable[Slide | Failure | None], order: InputOrder) -> Iterator[Slide | None]:
    """The slides of ``run``; its failures become rows."""
    for slide in run:
        if isinstance(slide, Failure):
            order.fail(slide)
        else:
            yield slide
