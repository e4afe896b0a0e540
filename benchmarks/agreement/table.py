"""Keep the measured agreements, and draw their table into docs/reference/networks.md."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from batchcls import machine
from benchmarks.agreement.comparison import Agreement
from benchmarks.agreement.names import NETWORKS

RESULTS = Path(__file__).parent / "results.json"
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "networks.md"
BEGIN, END = "<!-- agreement: begin -->", "<!-- agreement: end -->"
_COLUMNS = (
    "network",
    "library",
    "what was built",
    "images",
    "same label, float32",
    "largest difference, float32",
    "same label, bfloat16, of clear ones",
    "largest difference, bfloat16",
)


def keep(agreement: Agreement) -> None:
    """Keep an agreement in `RESULTS`, in the place of an earlier one of the same network."""
    kept = [item for item in read() if (item.library, item.name) != (agreement.library, agreement.name)]
    order = [(library, name) for library, names in NETWORKS.items() for name in names]
    kept = sorted([*kept, agreement], key=lambda item: order.index((item.library, item.name)))
    features = "; ".join([machine.cpu_model(), *machine.cpu_features()])
    text = json.dumps({"cpu": features, "networks": [asdict(item) for item in kept]}, indent=2)
    RESULTS.write_text(f"{text}\n", encoding="utf-8")


def read() -> list[Agreement]:
    """The kept agreements, in the order of `NETWORKS`."""
    if not RESULTS.exists():
        return []
    return [Agreement(**values) for values in json.loads(RESULTS.read_text(encoding="utf-8"))["networks"]]


def write_page(page: Path = PAGE) -> None:
    """Replace the table between the markers of a page."""
    text = page.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    cpu = json.loads(RESULTS.read_text(encoding="utf-8"))["cpu"]
    caption = f"Measured on this CPU: {cpu}."
    page.write_text(f"{before}{BEGIN}\n\n{caption}\n\n{markdown(read())}\n\n{END}{after}", encoding="utf-8")


def markdown(agreements: Sequence[Agreement]) -> str:
    """A Markdown table with a row for each agreement."""
    rows = [_row(item) for item in agreements]
    lines = [_COLUMNS, tuple("---" for _ in _COLUMNS), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _row(item: Agreement) -> tuple[str, ...]:
    refused = item.clear is None or item.same_bf16 is None or item.largest_difference_bf16 is None
    return (
        item.name,
        item.library,
        item.source,
        str(item.images),
        f"{item.same} of {item.images}",
        f"{item.largest_difference:.1e}",
        "runs in float32" if refused else f"{item.same_bf16} of {item.clear}",
        "" if refused else f"{item.largest_difference_bf16:.4f}",
    )
