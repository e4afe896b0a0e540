"""How speed and memory change with the number of files, the batch size, the threads, and damaged files."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from batchcls.machine import cores
from benchmarks.suite import Candidate, SuiteConfig, case_candidates
from benchmarks.workload import CROPS, link_images

FILE_COUNTS = (1_000, 10_000, 50_000, 200_000)
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


def _step(config: SuiteConfig, folder: Path, name: str, case: str = "end-to-end", **settings: Any) -> Candidate:
    (candidate,) = case_candidates(replace(config, folder=folder), [case], **settings)
    return replace(candidate, name=name)
