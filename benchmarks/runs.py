"""The records of each run of the suite: which there are, and how they compare."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from benchmarks.record import LEAST_SAMPLES, RESULTS, Record

PLAIN, EXPERT = "torchvision DataLoader, eager FP32", "torchvision DataLoader, channels_last BF16 autocast"
GROWTH = "growth"
WHOLE = ("end-to-end", "end-to-end int8")

Run = Sequence[Record]
"""The records of one run of the suite on one workload."""


def newest(
    records: Iterable[Record], *, skipped: int = 0, least_samples: int = LEAST_SAMPLES
) -> dict[str, list[Record]]:
    """By workload, the records of its last run that has enough samples; of the last but ``skipped``."""
    runs: dict[str, dict[str, list[Record]]] = {}
    for record in records:
        if len(record.samples_s) >= least_samples:
            runs.setdefault(record.workload, {}).setdefault(record.run, []).append(record)
    return {workload: of_it[sorted(of_it)[-1 - skipped]] for workload, of_it in runs.items() if len(of_it) > skipped}


def by_arithmetic(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Records apart by what computed them: figures of one kind of CPU say nothing of another's."""
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(record.arithmetic, []).append(record)
    return dict(sorted(found.items()))


def committed() -> Iterator[Record]:
    """Every record that has come along."""
    for path in sorted(RESULTS.glob("*.jsonl")):
        yield from Record.read_all(path)


def chosen(records: Iterable[Record]) -> dict[str, dict[str, list[Record]]]:
    """What the README shows, by arithmetic and workload.

    The `newest`, and the newest growth, whose steps are so many that a few turns must do.
    """
    return {
        arithmetic: newest(of_it) | newest((record for record in of_it if record.workload == GROWTH), least_samples=1)
        for arithmetic, of_it in by_arithmetic(records).items()
    }


def rival(run: Run, kind: str) -> Record | None:
    """What A or B was in this run."""
    return next((record for record in run if record.case.startswith(kind)), None)


def pairs(record: Record, other: Record) -> list[float]:
    """How many times as fast ``record`` is, turn by turn."""
    return [ours / theirs for ours, theirs in zip(record.speeds, other.speeds, strict=True)]


def shares(record: Record, run: Run) -> list[float]:
    """How much of what its stages allow a whole run has reached, turn by turn; empty where that is not known.

    Where decoder and engine share the cores, the roof is 1 / (1/decode + 1/engine); on a GPU the slower of the two.
    """
    on_gpu = record.settings.get("device", "cpu") != "cpu"
    stages: list[Record] = [
        stage
        for stage in run
        if stage.case == f"decode-only {'dali' if on_gpu else 'turbo'}"
        or stage.case == record.case.replace("end-to-end", "engine-only")
    ]
    if record.case not in WHOLE or len(stages) < 2:
        return []
    roof: Callable[[float, float], float] = min if on_gpu else lambda one, other: 1 / (1 / one + 1 / other)
    return [
        speed / roof(one, other)
        for speed, one, other in zip(record.speeds, stages[0].speeds, stages[1].speeds, strict=True)
    ]


def ratios(run: Run) -> dict[str, list[float]]:
    """Everything about a run that another machine's run can be compared with, turn by turn."""
    found = {}
    for record in run:
        if record.case in WHOLE:
            found[f"{record.case}, share of the roof"] = shares(record, run)
            for name, kind in (("A", PLAIN), ("B", EXPERT)):
                if other := rival(run, kind):
                    found[f"{record.case} against {name}"] = pairs(record, other)
    return {name: turns for name, turns in found.items() if turns}
