"""Committed records become the README's table and charts."""

from collections.abc import Mapping
from pathlib import Path
from statistics import median

from benchmarks.record import RESULTS, Record
from benchmarks.runs import (
    BF16_LOOP,
    FP32_LOOP,
    GROWTH,
    Run,
    committed_records,
    find_record,
    limit_fractions,
    reported_runs,
    speedups,
)

README = Path(__file__).parent.parent / "README.md"
WHOLE_REPORT = RESULTS / "README.md"
BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
_HEAD = "| workload | case | images/s (range) | against A | against B | share of the roof | top-1 agreement | memory |"


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

    runs = reported_runs(committed_records())
    text = README.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(f"{before}{BEGIN}\n{summary(runs)}\n{END}{after}", encoding="utf-8")
    WHOLE_REPORT.write_text(whole(runs), encoding="utf-8")
    for arithmetic, of_it in runs.items():
        draw(of_it, RESULTS, "-".join(arithmetic.lower().replace(",", "").split()))


def _row(record: Record, run: Run) -> str:
    plain, expert = find_record(run, FP32_LOOP), find_record(run, BF16_LOOP)
    comparable = record.settings.get("network") == "googlenet" and record.top1_agreement is not None
    agreement = ""
    if record.top1_agreement is not None:
        agreement = f"{record.top1_agreement:.2%}, within {record.largest_difference:.3f}"
    cells = [
        f"{record.workload}, {record.images:,}",
        record.case + (" (A)" if record is plain else " (B)" if record is expert else ""),
        f"{_shown(record.images_per_s)} ({_shown(min(record.speeds))} to {_shown(max(record.speeds))})",
        f"{median(speedups(record, plain)):.2f}x" if plain and comparable else "",
        f"{median(speedups(record, expert)):.2f}x" if expert and comparable else "",
        f"{median(found):.2f}" if (found := limit_fractions(record, run)) else "",
        agreement,
        f"{record.peak_memory_bytes / 2**20:,.0f} MiB",
    ]
    return f"| {' | '.join(cells)} |"


def _shown(speed: float) -> str:
    return f"{speed:,.0f}" if speed >= 1000 else f"{speed:,.3g}"
