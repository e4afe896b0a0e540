"""Two runs of the suite, compared by what does not depend on the machine's mood: their ratios."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from benchmarks.runs import Run, ratios

_LEAST_CHANGE = 0.03
"""Smaller ones are not worth a word, however sure."""


@dataclass(frozen=True, slots=True)
class Change:
    """One ratio, before and now."""

    workload: str
    ratio: str
    before: list[float]
    now: list[float]

    @property
    def by(self) -> float:
        """Relative change of the median: -0.1 is a tenth less."""
        return median(self.now) / median(self.before) - 1

    @property
    def beyond_noise(self) -> bool:
        """Whether the turns' middle halves do not even touch."""
        (low, high), (now_low, now_high) = _middle(self.before), _middle(self.now)
        return abs(self.by) > _LEAST_CHANGE and (now_high < low or now_low > high)

    @property
    def slower(self) -> bool:
        return self.beyond_noise and self.by < 0

    def __str__(self) -> str:
        verdict = "slower" if self.slower else "faster" if self.beyond_noise else "the same within noise"
        change = f"{median(self.before):.2f} -> {median(self.now):.2f} ({self.by:+.1%})"
        return f"{self.workload}, {self.ratio}: {change}, {verdict}"


def changes(before: Mapping[str, Run], now: Mapping[str, Run]) -> list[Change]:
    """Every ratio that both have."""
    found = []
    for workload in before.keys() & now.keys():
        old, new = ratios(before[workload]), ratios(now[workload])
        found += [Change(workload, name, old[name], new[name]) for name in old if name in new]
    return sorted(found, key=lambda change: (change.workload, change.ratio))


def _middle(turns: list[float]) -> tuple[float, float]:
    """The middle half of the turns: of five, the second to the fourth."""
    ordered = sorted(turns)
    cut = len(ordered) // 4
    return ordered[cut], ordered[-1 - cut]
