"""Comparison of two runs of the suite by their ratios, which depend less on the machine than speeds do."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.record import Record
from benchmarks.runs import Run, by_arithmetic, committed_records, newest_runs, run_ratios

_MIN_CHANGE = 0.03
"""Smallest relative change that counts, even where the turns do not overlap."""


@dataclass(frozen=True, slots=True)
class Change:
    """One ratio in an earlier and in a later run."""

    workload: str
    ratio: str
    """Name of the ratio."""
    before: list[float]
    """The earlier run's values, turn by turn."""
    after: list[float]
    """The later run's values, turn by turn."""

    @property
    def relative(self) -> float:
        """Relative change of the median; -0.1 is a tenth less."""
        return median(self.after) / median(self.before) - 1

    @property
    def beyond_noise(self) -> bool:
        """Whether the middle halves of the turns are apart, and the change is large enough to count."""
        (low, high), (low_after, high_after) = _middle_half(self.before), _middle_half(self.after)
        return abs(self.relative) > _MIN_CHANGE and (high_after < low or low_after > high)

    @property
    def slower(self) -> bool:
        """Whether the ratio fell beyond the noise."""
        return self.beyond_noise and self.relative < 0

    def __str__(self) -> str:
        verdict = "slower" if self.slower else "faster" if self.beyond_noise else "the same within noise"
        change = f"{median(self.before):.2f} -> {median(self.after):.2f} ({self.relative:+.1%})"
        return f"{self.workload}, {self.ratio}: {change}, {verdict}"


def changes_between(before: Path | None, after: Path | None) -> list[Change]:
    """The changes from the records in one file to those in another, on each kind of CPU that both were measured on.

    Without ``before``, the committed records' last run of each workload is compared with the one before it.
    """
    old = by_arithmetic(Record.read_all(before) if before else committed_records())
    new = by_arithmetic(Record.read_all(after) if after else committed_records())
    return [
        change
        for arithmetic in old.keys() & new.keys()
        for change in changes(newest_runs(old[arithmetic], skipped=0 if before else 1), newest_runs(new[arithmetic]))
    ]


def changes(before: Mapping[str, Run], after: Mapping[str, Run]) -> list[Change]:
    """The change of every ratio that both sides have, sorted by workload and ratio.

    Args:
        before: Earlier runs, by workload.
        after: Later runs, by workload.
    """
    compared = []
    for workload in before.keys() & after.keys():
        old, new = run_ratios(before[workload]), run_ratios(after[workload])
        compared += [Change(workload, name, old[name], new[name]) for name in old if name in new]
    return sorted(compared, key=lambda change: (change.workload, change.ratio))


def _middle_half(turns: list[float]) -> tuple[float, float]:
    """Lowest and highest value of the middle half: of five turns, the second and the fourth."""
    ordered = sorted(turns)
    cut = len(ordered) // 4
    return ordered[cut], ordered[-1 - cut]
