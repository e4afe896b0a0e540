"""Tables that compare two checkouts of batchcls, which were measured in turns within one run."""

from collections.abc import Iterable, Iterator
from itertools import chain
from statistics import median

from benchmarks.record import RESULTS, Record
from benchmarks.runs import Run, by_arithmetic, newest_runs, speedups

COMPARISONS = RESULTS / "comparisons"
"""Folder of the committed records of comparisons, which no other table shows."""
_COLUMNS = ("case", "files/s", "ratio", "CPU a file", "memory")


def comparison_table(run: Run) -> str:
    """A Markdown table of the records of `benchmarks.suite.compared_candidates`, with a row for each case."""
    before, after = run[0].commit, run[1].commit
    rows = [_row(*run[position : position + 2]) for position in range(0, len(run), 2)]
    lines = [f"| {' | '.join(cells)} |" for cells in (_COLUMNS, ["---"] * len(_COLUMNS), *rows)]
    machine = run[0].machine
    caption = (
        f"{run[0].workload}, medians of {len(run[0].samples_s)} turns (range), {before or 'no commit'} -> "
        f"{after or 'no commit'}, on {machine['cores']} cores of {machine['cpu']} ({run[0].arithmetic}), {run[0].run}."
    )
    return "\n".join([caption, "", *lines])


def committed_comparisons() -> Iterator[str]:
    """The table of the newest comparison on each kind of CPU and each workload."""
    paths = sorted(COMPARISONS.glob("*.jsonl"))
    for group in by_arithmetic(chain.from_iterable(map(Record.read_all, paths))).values():
        yield from map(comparison_table, newest_runs(group).values())


def _row(before: Record, after: Record) -> Iterable[str]:
    ratios = speedups(after, before)
    return (
        f"{after.case}, {after.images:,}",
        f"{_speed(before)} -> {_speed(after)}",
        f"{median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f})",
        f"{_cpu(before)} -> {_cpu(after)}",
        f"{before.peak_memory_bytes / 2**20:,.0f} -> {after.peak_memory_bytes / 2**20:,.0f} MiB",
    )


def _speed(record: Record) -> str:
    return f"{record.images_per_s:,.0f} ({min(record.speeds):,.0f} to {max(record.speeds):,.0f})"


def _cpu(record: Record) -> str:
    return f"{record.cpu_us_per_image:,.0f} µs" if record.samples_cpu_s else "not measured"
