"""How speed and memory change with the number of files, the batch size, the threads, and damaged files."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from batchcls.machine import cores
from benchmarks.record import Record
from benchmarks.suite import Candidate, SuiteConfig, case_candidates
from benchmarks.workload import CROPS, link_images

FILE_COUNTS = (1_000, 10_000, 50_000, 200_000)
SCALE_FILES = (100_000, 1_000_000)
_BATCH_SIZES = (1, 8, 64, 256, 512)
_CORRUPT_FRACTIONS = (0.01, 0.1)
_INT8_FILES = 10_000
_FILES = 2_048
"""Number of files for the steps that vary something else."""


def growth_candidates(config: SuiteConfig) -> Iterator[Candidate]:
    """A candidate for each step of growth, on links to the images of ``config.folder``.

    The largest folders are run without inference (backend ``null``), because a step would take half an hour with it.

    Args:
        config: Configuration of the suite, with the images of `CROPS` as its folder.
    """
    for files in FILE_COUNTS:
        yield _step(config, link_images(config.folder, files), f"{files:,} files, no inference", backend="null")
    int8_folder = link_images(config.folder, _INT8_FILES)
    yield _step(config, int8_folder, f"{_INT8_FILES:,} files, int8", case="end-to-end int8")
    folder = link_images(config.folder, _FILES)
    for batch_size in _BATCH_SIZES:
        yield _step(config, folder, f"batches of {batch_size}", batch_size=batch_size)
    for threads in sorted({1, cores() // 2 or 1, cores()}):
        yield _step(config, folder, f"{threads} threads", threads=threads)
    for fraction in _CORRUPT_FRACTIONS:
        workload = replace(CROPS, name=f"crops-224x224-{fraction:.0%}-corrupt", corrupt_fraction=fraction)
        yield _step(config, workload.draw(config.scratch), f"{fraction:.0%} of the files corrupt")


def scale_candidates(config: SuiteConfig, file_counts: Sequence[int]) -> Iterator[Candidate]:
    """A candidate for each number of files: the command `batchcls run` without inference, on links to the images.

    Its memory is that of all its processes, as `benchmarks.peers.memory.MemoryWatch` samples it.
    """
    for files in file_counts:
        folder = link_images(config.folder, files)
        yield _step(config, folder, f"{files:,} files, the command without inference", case="command, no inference")


def scale_table(records: Sequence[Record]) -> str:
    """A Markdown table of the records that `scale_candidates` leads to, and how memory grows from each to the next."""
    lines = ["| case | rows | files/s | CPU a file | memory |", "|---|---|---|---|---|"]
    lines += [
        f"| {record.case} | {record.images:,} | {record.images_per_s:,.0f} | {record.cpu_us_per_image:,.0f} µs | "
        f"{record.peak_memory_bytes / 2**20:,.0f} MiB |"
        for record in records
    ]
    for fewer, more in pairwise(sorted(records, key=lambda record: record.images)):
        grown_bytes, files = more.peak_memory_bytes - fewer.peak_memory_bytes, more.images - fewer.images
        growth = f"{grown_bytes / files / 1000:.2f} KB of memory a file" if files else "no growth"
        lines += ["", f"From {fewer.images:,} to {more.images:,} rows: {growth}."]
    return "\n".join(lines)


def _step(config: SuiteConfig, folder: Path, name: str, case: str = "end-to-end", **settings: Any) -> Candidate:
    (candidate,) = case_candidates(replace(config, folder=folder), [case], **settings)
    return replace(candidate, name=name)
