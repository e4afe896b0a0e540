"""Charts of the records, as reproducible SVG: the same records give the same bytes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from benchmarks.growth import FILE_COUNTS
from benchmarks.record import Record
from benchmarks.runs import BF16_LOOP, END_TO_END, FP32_LOOP, GROWTH, Run, find_record

mpl.use("svg")
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "batchcls",
    "svg.fonttype": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_COLORS = {FP32_LOOP: "#b8b8b8", BF16_LOOP: "#7f7f7f", "end-to-end": "#5b8def", "end-to-end int8": "#1f4fb4"}
_NAMES = {
    FP32_LOOP: "PyTorch FP32 loop (DataLoader, eager)",
    BF16_LOOP: "PyTorch BF16 loop (channels_last, autocast)",
    "end-to-end": "batchcls, bfloat16",
    "end-to-end int8": "batchcls, int8",
}


def draw(runs: Mapping[str, Run], folder: Path, name: str) -> None:
    """Write ``speed-NAME.svg`` and ``growth-NAME.svg`` into ``folder``, each if there are records for it.

    Args:
        runs: Runs by workload.
        folder: Folder of the charts.
        name: Name of the hardware in the names of the files.
    """
    with plt.rc_context(_STYLE):
        compared = {workload: run for workload, run in runs.items() if find_record(run, FP32_LOOP)}
        if compared:
            _speed(compared, folder / f"speed-{name}.svg")
        if GROWTH in runs:
            _growth(runs[GROWTH], folder / f"growth-{name}.svg")


def _speed(runs: Mapping[str, Run], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(8, 0.9 * len(runs) + 1.4), layout="constrained")
    height = 0.8 / len(_NAMES)
    for place, (name, label) in enumerate(_NAMES.items()):
        bars = [(row, record) for row, run in enumerate(runs.values()) if (record := _bar(run, name))]
        middle = [record.images_per_s for _, record in bars]
        spread = [
            [value - min(record.speeds) for value, (_, record) in zip(middle, bars, strict=True)],
            [max(record.speeds) - value for value, (_, record) in zip(middle, bars, strict=True)],
        ]
        rows = [row + (place - 1.5) * height for row, _ in bars]
        axes.barh(rows, middle, height, xerr=spread, label=label, color=_COLORS[name], error_kw={"elinewidth": 0.8})
    axes.set_yticks(range(len(runs)), list(runs))
    axes.invert_yaxis()
    axes.set_xlabel("images/s, from the files to the Parquet: median and range of five turns")
    axes.legend(frameon=False, fontsize="small")
    _save(figure, path)


def _growth(run: Run, path: Path) -> None:
    by_files = {
        int(record.case.partition(" ")[0].replace(",", "")): record for record in run if "no inf" in record.case
    }
    files = [count for count in FILE_COUNTS if count in by_files]
    figure, (speed, memory) = plt.subplots(1, 2, figsize=(8, 2.8), layout="constrained")
    speed.plot(files, [by_files[count].images_per_s for count in files], "o-", color=_COLORS["end-to-end int8"])
    memory.plot(files, [by_files[count].peak_memory_bytes / 2**20 for count in files], "o-", color=_COLORS[BF16_LOOP])
    for axes, label in ((speed, "images/s without inference"), (memory, "peak memory, MiB")):
        axes.set_xscale("log")
        axes.margins(y=0.15)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("files")
        axes.set_ylabel(label)
    _save(figure, path)


def _bar(run: Run, name: str) -> Record | None:
    if name in END_TO_END:
        return next((record for record in run if record.case == name), None)
    return find_record(run, name)


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
