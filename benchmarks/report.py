"""Committed records become the README's table."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from benchmarks.cases import EXPERT, PEER, PLAIN
from benchmarks.record import LEAST_SAMPLES, RESULTS, Record

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
_HEAD = "| workload | case | images/s (range) | against A | against B | share of the roof | top-1 agreement |"


def newest(records: Iterable[Record]) -> dict[str, list[Record]]:
    """By workload, the records of its last run that has enough samples."""
    runs: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda record: record.run):
        if len(record.samples_s) >= LEAST_SAMPLES:
            known = runs.setdefault(record.workload, [])
            if known and known[0].run != record.run:
                known.clear()
            known.append(record)
    return runs


def committed() -> Iterator[Record]:
    """Every record that has come along."""
    for path in sorted(RESULTS.glob("*.jsonl")):
        yield from Record.read_all(path)


def table(records: Iterable[Record]) -> str:
    """The newest of ``records``, as a table in Markdown."""
    lines = [_HEAD, "|---|---|---|---|---|---|---|"]
    for workload, run in newest(records).items():
        plain, expert = (_fastest(run, f"{PEER} {mode}") for mode in (PLAIN, EXPERT))
        shown = [record for record in run if not record.case.startswith(PEER)] + [plain, expert]
        lines += [_row(workload, record, run, plain, expert) for record in shown if record is not None]
    return "\n".join(lines)


def write_readme() -> None:
    """Put the table between the README's markers."""
    text = README.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(f"{before}{BEGIN}\n{table(committed())}\n{END}{after}", encoding="utf-8")


def roof(run: Sequence[Record]) -> float | None:
    """Images/s that no run can exceed.

    Where decoder and engine share the cores: 1 / (1/decode + 1/engine). On a GPU: the slower of the two.
    """
    speeds = {record.case: record.images_per_s for record in run}
    on_gpu = any(record.settings.get("device", "cpu") != "cpu" for record in run)
    decode, engine = speeds.get(f"decode-only {'dali' if on_gpu else 'turbo'}"), speeds.get("engine-only")
    if decode is None or engine is None:
        return None
    return min(decode, engine) if on_gpu else 1 / (1 / decode + 1 / engine)


def _fastest(run: list[Record], kind: str) -> Record | None:
    return max((r for r in run if r.case.startswith(kind)), key=lambda r: r.images_per_s, default=None)


def _row(workload: str, record: Record, run: list[Record], plain: Record | None, expert: Record | None) -> str:
    whole = not record.case.endswith("-only") and "-only " not in record.case
    limit = roof(run) if record.case == "end-to-end" else None
    low, high = record.range_images_per_s
    cells = [
        f"{workload}, {record.images:,} images",
        record.case + {id(plain): " (A)", id(expert): " (B)"}.get(id(record), ""),
        f"{record.images_per_s:,.1f} ({low:,.1f} to {high:,.1f})",
        f"{record.images_per_s / plain.images_per_s:.2f}x" if plain and whole else "",
        f"{record.images_per_s / expert.images_per_s:.2f}x" if expert and whole else "",
        f"{record.images_per_s / limit:.2f}" if limit else "",
        "" if record.top1_agreement is None else f"{record.top1_agreement:.4f}",
    ]
    return f"| {' | '.join(cells)} |"
