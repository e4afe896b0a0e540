"""Committed records become the README's table and charts."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median

from benchmarks.record import LEAST_SAMPLES, RESULTS, Record

README = Path(__file__).parent.parent / "README.md"
WHOLE_REPORT = RESULTS / "README.md"
BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
PLAIN, EXPERT = "torchvision DataLoader, eager FP32", "torchvision DataLoader, channels_last BF16 autocast"
GROWTH = "growth"
WHOLE = ("end-to-end", "end-to-end int8")
_HEAD = "| workload | case | images/s (range) | against A | against B | share of the roof | top-1 agreement | memory |"

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


def table(runs: Mapping[str, Run], *, stages: bool = True) -> str:
    """The runs as a table in Markdown, with what is measured of a stage alone or without."""
    lines = [_HEAD, "|" + "---|" * (_HEAD.count("|") - 1)]
    for run in runs.values():
        lines += [_row(record, run) for record in run if stages or record.top1_agreement is not None]
    return "\n".join(lines)


def summary(runs: Mapping[str, Mapping[str, Run]]) -> str:
    """What the README shows, a table for each arithmetic."""
    parts = []
    for arithmetic, of_it in runs.items():
        shown = {workload: run for workload, run in of_it.items() if workload != GROWTH}
        parts += [f"{arithmetic}:", table(shown, stages=False)]
    return "\n\n".join(parts)


def whole(runs: Mapping[str, Mapping[str, Run]]) -> str:
    """What stands beside the records: every row, and where it was measured."""
    parts = ["# What was measured", "Made by `python -m benchmarks report` from the newest records here."]
    for arithmetic, of_it in runs.items():
        places = dict.fromkeys(
            f"- {workload}: {run[0].machine['cpu']}, {run[0].machine['cores']} cores, commit {run[0].commit}, "
            f"{run[0].run}"
            for workload, run in of_it.items()
        )
        parts += [f"## {arithmetic}", table(of_it), "\n".join(places)]
    return "\n\n".join(parts) + "\n"


def write_readme() -> None:
    """Put the summary between the README's markers, and the whole table and the charts beside the records."""
    from benchmarks.charts import draw

    runs = chosen(committed())
    text = README.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(f"{before}{BEGIN}\n{summary(runs)}\n{END}{after}", encoding="utf-8")
    WHOLE_REPORT.write_text(whole(runs), encoding="utf-8")
    for arithmetic, of_it in runs.items():
        draw(of_it, RESULTS, "-".join(arithmetic.lower().replace(",", "").split()))


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
        whole / roof(one, other)
        for whole, one, other in zip(record.speeds, stages[0].speeds, stages[1].speeds, strict=True)
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


def _row(record: Record, run: Run) -> str:
    plain, expert = rival(run, PLAIN), rival(run, EXPERT)
    comparable = record.settings.get("network") == "googlenet" and record.top1_agreement is not None
    agreement = ""
    if record.top1_agreement is not None:
        agreement = f"{record.top1_agreement:.2%}, within {record.largest_difference:.3f}"
    cells = [
        f"{record.workload}, {record.images:,}",
        record.case + (" (A)" if record is plain else " (B)" if record is expert else ""),
        f"{_shown(record.images_per_s)} ({_shown(min(record.speeds))} to {_shown(max(record.speeds))})",
        f"{median(pairs(record, plain)):.2f}x" if plain and comparable else "",
        f"{median(pairs(record, expert)):.2f}x" if expert and comparable else "",
        f"{median(found):.2f}" if (found := shares(record, run)) else "",
        agreement,
        f"{record.peak_memory_bytes / 2**20:,.0f} MiB",
    ]
    return f"| {' | '.join(cells)} |"


def _shown(speed: float) -> str:
    return f"{speed:,.0f}" if speed >= 1000 else f"{speed:,.3g}"
