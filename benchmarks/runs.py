"""Runs of the suite, read from records, and the ratios that compare them."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from benchmarks.record import MIN_SAMPLES, RESULTS, Record

FP32_LOOP = "torchvision DataLoader, eager FP32"
BF16_LOOP = "torchvision DataLoader, channels_last BF16 autocast"
"""Beginnings of the two PyTorch loops' names, which end with the number of workers."""
GROWTH = "growth"
"""Workload name of ``python -m benchmarks growth``."""
SCALE = "scale"
"""Workload name of ``python -m benchmarks scale``."""
END_TO_END = ("end-to-end", "end-to-end int8")
"""Cases that classify a folder from the first file to the finished Parquet, with the engine under test."""
_LOOPS = {"PyTorch FP32 loop": FP32_LOOP, "PyTorch BF16 loop": BF16_LOOP}

Run = Sequence[Record]
"""The records of one run of the suite on one workload."""


def newest_runs(
    records: Iterable[Record], *, skipped: int = 0, min_samples: int = MIN_SAMPLES
) -> dict[str, list[Record]]:
    """The newest run of each workload, by the workload's name.

    Args:
        skipped: Number of newest runs to skip; 1 gives the run before the newest.
        min_samples: Records with fewer samples are ignored.
    """
    runs: dict[str, dict[str, list[Record]]] = {}
    for record in records:
        if len(record.samples_s) >= min_samples:
            runs.setdefault(record.workload, {}).setdefault(record.run, []).append(record)
    return {
        workload: by_start[sorted(by_start)[-1 - skipped]]
        for workload, by_start in runs.items()
        if len(by_start) > skipped
    }


def by_arithmetic(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Records grouped by `Record.arithmetic`, because speeds on different hardware are never compared."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record.arithmetic, []).append(record)
    return dict(sorted(groups.items()))


def committed_records() -> Iterator[Record]:
    """Every record in `RESULTS`, oldest file first."""
    for path in sorted(RESULTS.glob("*.jsonl")):
        yield from Record.read_all(path)


def reported_runs(records: Iterable[Record]) -> dict[str, dict[str, list[Record]]]:
    """The runs that the documents report, by arithmetic and workload.

    These are the newest runs with enough samples, and the newest runs of `GROWTH` and `SCALE` with any number of
    samples, because their many or long steps are repeated only a few times.
    """
    return {
        arithmetic: newest_runs(group)
        | newest_runs((record for record in group if record.workload in (GROWTH, SCALE)), min_samples=1)
        for arithmetic, group in by_arithmetic(records).items()
    }


def find_record(run: Run, case_prefix: str) -> Record | None:
    """The first record of ``run`` whose case begins with ``case_prefix``, such as `FP32_LOOP`."""
    return next((record for record in run if record.case.startswith(case_prefix)), None)


def speedups(record: Record, baseline: Record) -> list[float]:
    """Speed of ``record`` divided by that of ``baseline``, turn by turn."""
    return [speed / reference for speed, reference in zip(record.speeds, baseline.speeds, strict=True)]


def limit_fractions(record: Record, run: Run) -> list[float]:
    """Fraction of the hardware's limit that an end-to-end case reached, turn by turn; empty where not measured.

    The limit follows from the decoder and the engine, each measured alone in ``run``. On a CPU both share the cores,
    so the limit is 1 / (1/decode + 1/engine); on a GPU it is the slower of the two.
    """
    on_gpu = record.settings.get("device", "cpu") != "cpu"
    stages: list[Record] = [
        stage
        for stage in run
        if stage.case == f"decode-only {'dali' if on_gpu else 'turbo'}"
        or stage.case == record.case.replace("end-to-end", "engine-only")
    ]
    if record.case not in END_TO_END or len(stages) < 2:
        return []
    limit: Callable[[float, float], float] = min if on_gpu else lambda one, other: 1 / (1 / one + 1 / other)
    return [
        speed / limit(one, other)
        for speed, one, other in zip(record.speeds, stages[0].speeds, stages[1].speeds, strict=True)
    ]


def run_ratios(run: Run) -> dict[str, list[float]]:
    """Every ratio within ``run`` that can be compared with the same ratio on another machine, turn by turn."""
    ratios = {}
    for record in run:
        if record.case in END_TO_END:
            ratios[f"{record.case}, fraction of the hardware's limit"] = limit_fractions(record, run)
            for name, case_prefix in _LOOPS.items():
                if loop := find_record(run, case_prefix):
                    ratios[f"{record.case} vs. {name}"] = speedups(record, loop)
    return {name: turns for name, turns in ratios.items() if turns}
