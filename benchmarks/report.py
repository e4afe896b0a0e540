"""Generate the README's speed table, and the tables and charts of docs/explanation/speed.md, from committed records."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median

from benchmarks.comparison import committed_comparisons
from benchmarks.record import RESULTS, Record
from benchmarks.runs import (
    BF16_LOOP,
    END_TO_END,
    FP32_LOOP,
    GROWTH,
    Run,
    committed_records,
    find_record,
    limit_fractions,
    reported_runs,
    speedups,
)
from benchmarks.workload import FIELDS, WORKLOADS

README = Path(__file__).parent.parent / "README.md"
SPEED_PAGE = README.parent / "docs" / "explanation" / "speed.md"
BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
BEGIN_COMPARISONS, END_COMPARISONS = "<!-- comparisons: begin -->", "<!-- comparisons: end -->"
BEGIN_RUN, END_RUN = "<!-- one run: begin -->", "<!-- one run: end -->"
_RATIOS = ("vs. PyTorch FP32 loop", "vs. PyTorch BF16 loop", "of the hardware's limit")
_COLUMNS = ("workload", "case", "images/s (range)", *_RATIOS, "same label as PyTorch FP32", "memory")
_OVERVIEW_COLUMNS = ("images", "images/s", "images/s in int8", *_RATIOS, "same label as PyTorch FP32")
_NOT_MEASURED = "not measured"


def table(runs: Mapping[str, Run]) -> str:
    """A Markdown table of runs, by workload, with a row for each record."""
    rows = [_row(record, run) for run in runs.values() for record in run]
    return _markdown(_COLUMNS, rows)


def overview(runs: Mapping[str, Mapping[str, Run]]) -> str:
    """The README's table: end-to-end runs compared with PyTorch's loops, on the hardware with most such runs.

    A row is a workload on which both loops were measured; its ratios are those of the committed engine, not of int8.
    """
    arithmetic, compared = _most_compared(runs)
    machine = next(run[0].machine for run in compared.values())
    rows = [_overview_row(run) for run in compared.values()]
    caption = f"Medians of five turns, on {machine['cores']} cores of this CPU: {machine['cpu']} ({arithmetic})."
    return f"{caption}\n\n{_markdown(_OVERVIEW_COLUMNS, rows)}"


def printed(runs: Mapping[str, Mapping[str, Run]]) -> str:
    """The output of ``python -m benchmarks run`` for the demo's kind of images, from records, in its present format."""
    run = _most_compared(runs)[1][FIELDS.name]
    target = (RESULTS / f"{run[0].run[:10]}.jsonl").relative_to(README.parent)
    return f"```text\nrecords -> {target}\n{table({FIELDS.name: run})}\n```"


def full_tables(runs: Mapping[str, Mapping[str, Run]]) -> str:
    """The generated part of the page on speed: for each kind of hardware charts, a table, and the machines."""
    parts = []
    for arithmetic, hardware_runs in runs.items():
        places = dict.fromkeys(
            f"- {workload}: {run[0].machine['cpu']}, {run[0].machine['cores']} cores, commit {run[0].commit}, "
            f"{run[0].run}"
            for workload, run in hardware_runs.items()
        )
        name = _file_name(arithmetic)
        parts.append(f"### {arithmetic}")
        if any(find_record(run, FP32_LOOP) for run in hardware_runs.values()):
            parts.append(f"![Images/s of batchcls and of PyTorch loops, by workload](speed-{name}.svg)")
        parts += [table(hardware_runs), "\n".join(places)]
        if GROWTH in hardware_runs:
            parts.append(f"![Images/s and peak memory from 1,000 to 200,000 files](growth-{name}.svg)")
    return "\n\n".join(parts)


def between_markers(text: str, begin: str = BEGIN, end: str = END) -> str:
    """The generated part of a page's text, which stands between two markers."""
    return text.partition(begin)[2].partition(end)[0].strip()


def write_pages() -> None:
    """Put the tables between the markers of the README and of the page on speed, and the charts beside the latter."""
    from benchmarks.charts import draw

    runs = reported_runs(committed_records())
    for page, begin, end, generated in (
        (README, BEGIN, END, overview(runs)),
        (README, BEGIN_RUN, END_RUN, printed(runs)),
        (SPEED_PAGE, BEGIN, END, full_tables(runs)),
        (SPEED_PAGE, BEGIN_COMPARISONS, END_COMPARISONS, "\n\n".join(committed_comparisons())),
    ):
        before, _, rest = page.read_text(encoding="utf-8").partition(begin)
        _, _, after = rest.partition(end)
        page.write_text(f"{before}{begin}\n{generated}\n{end}{after}", encoding="utf-8")
    for arithmetic, hardware_runs in runs.items():
        draw(hardware_runs, SPEED_PAGE.parent, _file_name(arithmetic))


def _most_compared(runs: Mapping[str, Mapping[str, Run]]) -> tuple[str, dict[str, Run]]:
    """The kind of hardware on which most workloads were measured together with both loops, and these runs."""
    compared = {
        arithmetic: {
            workload: run for workload, run in hardware_runs.items() if workload in WORKLOADS and _is_compared(run)
        }
        for arithmetic, hardware_runs in runs.items()
    }
    return max(compared.items(), key=lambda item: len(item[1]))


def _is_compared(run: Run) -> bool:
    has_run = any(record.case == END_TO_END[0] for record in run)
    return has_run and all(find_record(run, loop) for loop in (FP32_LOOP, BF16_LOOP))


def _row(record: Record, run: Run) -> list[str]:
    fp32_loop, bf16_loop = find_record(run, FP32_LOOP), find_record(run, BF16_LOOP)
    loop = " = the FP32 loop" if record is fp32_loop else " = the BF16 loop" if record is bf16_loop else ""
    agreement = _agreement(record)
    return [
        f"{record.workload}, {record.images:,}",
        record.case + loop,
        f"{_speed(record.images_per_s)} ({_speed(min(record.speeds))} to {_speed(max(record.speeds))})",
        *_ratios(record, run),
        f"{agreement}, probabilities within {record.largest_difference:.3f}" if agreement else "",
        f"{record.peak_memory_bytes / 2**20:,.0f} MiB",
    ]


def _overview_row(run: Run) -> list[str]:
    end_to_end = next(record for record in run if record.case == END_TO_END[0])
    int8 = next((record for record in run if record.case == END_TO_END[1]), None)
    drawn = WORKLOADS[end_to_end.workload]
    return [
        f"{drawn.width_px}x{drawn.height_px} {drawn.format}",
        _speed(end_to_end.images_per_s),
        _speed(int8.images_per_s) if int8 else _NOT_MEASURED,
        *(ratio or _NOT_MEASURED for ratio in _ratios(end_to_end, run)),
        _agreement(end_to_end),
    ]


def _ratios(record: Record, run: Run) -> list[str]:
    """Ratios of a record to both loops and to the hardware's limit, as text; empty if not measured."""
    comparable = record.settings.get("network") == "googlenet" and record.top1_agreement is not None
    loops = [find_record(run, kind) for kind in (FP32_LOOP, BF16_LOOP)]
    return [
        *(f"{median(speedups(record, loop)):.2f}x" if loop and comparable else "" for loop in loops),
        f"{median(reached):.0%}" if (reached := limit_fractions(record, run)) else "",
    ]


def _agreement(record: Record) -> str:
    return f"{record.top1_agreement:.2%}" if record.top1_agreement is not None else ""


def _markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(
        [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns), *(f"| {' | '.join(row)} |" for row in rows)]
    )


def _speed(images_per_s: float) -> str:
    return f"{images_per_s:,.0f}" if images_per_s >= 1000 else f"{images_per_s:,.3g}"


def _file_name(arithmetic: str) -> str:
    return "-".join(arithmetic.lower().replace(",", "").split())
