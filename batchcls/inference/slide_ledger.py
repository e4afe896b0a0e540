"""Who holds which slides of a run, so that each slide is answered once, whoever is lost."""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import replace

from batchcls.inference.drawn_slides import DrawnSlides
from batchcls.records import BatchResult, Failure, Predictions, Slide

_LOSSES = 3
"""Number of holders that a slide may be lost with before it is suspected to end them."""


class SlideLedger:
    """Hands out slides to holders, and takes their answers.

    The slides of a lost holder go to the next one. Slides that were lost with several holders are suspects: half of
    them go to a holder that has nothing else, then half of these, until one slide alone is lost with its holder and
    has a row that says so.

    Args:
        drawn: The slides of the run.
    """

    def __init__(self, drawn: DrawnSlides) -> None:
        self._drawn = drawn
        self._held: dict[str, dict[Slide, None]] = {}
        """Slides without an answer, by holder."""
        self._returned: deque[Slide] = deque()
        self._suspects: deque[list[Slide]] = deque()
        """Groups of suspects that wait for a holder."""
        self._testing: set[str] = set()
        """Holders of a group of suspects."""
        self._losses: Counter[Slide] = Counter()
        """Number of holders that a slide was lost with."""

    @property
    def complete(self) -> bool:
        """Whether every slide has its answer."""
        return self._drawn.ended and not (self._returned or self._suspects or any(self._held.values()))

    @property
    def waiting(self) -> int:
        """Number of slides at hand that nobody holds."""
        return len(self._drawn) + len(self._returned) + sum(map(len, self._suspects))

    def held(self, holder: str) -> int:
        """Number of slides that ``holder`` has not answered yet."""
        return len(self._held.get(holder, ()))

    def take(self, holder: str, count: int, characters: int) -> list[Slide]:
        """The next slides for ``holder``, up to ``count`` whose paths have ``characters`` characters; may be empty."""
        held = self._held.setdefault(holder, {})
        if self._suspects and not held:
            portion = self._suspects.popleft()
            self._testing.add(holder)
        elif held and holder in self._testing:
            return []
        else:
            self._testing.discard(holder)
            portion = [self._returned.popleft() for _ in range(min(count, len(self._returned)))]
            portion = portion or self._drawn.take(count, characters)
        held.update(dict.fromkeys(portion))
        return portion

    def settle(self, holder: str, result: BatchResult) -> BatchResult:
        """``result`` without rows of slides that ``holder`` does not hold, or has answered before."""
        held = self._held.setdefault(holder, {})

        def is_first(slide: Slide) -> bool:
            self._losses.pop(slide, None)
            return held.pop(slide, self) is None

        rows = [row for row, slide in enumerate(result.slides) if is_first(slide)]
        failures = [failure for failure in result.failures if is_first(failure.slide)]
        postponed = [file for file in result.postponed if is_first(file.slide)]
        if len(rows) == len(result.slides):
            return replace(result, failures=failures, postponed=postponed)
        return replace(
            result,
            slides=[result.slides[row] for row in rows],
            sizes=[result.sizes[row] for row in rows],
            predictions=Predictions(
                result.predictions.labels[rows], result.predictions.probabilities[rows], result.predictions.finite[rows]
            ),
            failures=failures,
            postponed=postponed,
        )

    def lose(self, holder: str) -> list[Failure]:
        """Give the slides of a lost holder to others; a slide that has ended its holder alone becomes a failure."""
        slides = list(self._held.pop(holder, ()))
        tested = holder in self._testing
        self._testing.discard(holder)
        self._losses.update(slides)
        if tested and len(slides) == 1:
            lost = self._losses.pop(slides[0])
            return [Failure(slides[0], "corrupt", f"each of {lost} processes that decoded it has ended")]
        suspects = [slide for slide in slides if tested or self._losses[slide] >= _LOSSES]
        self._returned.extend(slide for slide in slides if not tested and self._losses[slide] < _LOSSES)
        self._suspects.extendleft(reversed(_halves(suspects)))
        return []


def _halves(slides: Sequence[Slide]) -> list[list[Slide]]:
    middle = len(slides) // 2
    return [list(half) for half in (slides[:middle], slides[middle:]) if half]
