"""How speed and memory change with the number of files, the batch, the threads, and damaged files."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from batchcls.machine import cores
from benchmarks.suite import Course, Entrant, cases
from benchmarks.workload import CROPS, linked

FILES = (1_000, 10_000, 50_000, 200_000)
_BATCHES = (1, 8, 64, 256, 512)
_CORRUPT = (0.01, 0.1)
_SOME = 2_048


def steps(course: Course) -> Iterator[Entrant]:
    """Each step as an entrant, on links to the images of ``course``'s folder, which are `CROPS`.

    The longest folders go without inference (backend ``null``), or a step would take half an hour.
    """
    for files in FILES:
        yield _step(course, linked(course.folder, files), f"{files:,} files, no inference", backend="null")
    yield _step(course, linked(course.folder, 10_000), "10,000 files, int8", case="end-to-end int8")
    some = linked(course.folder, _SOME)
    for batch_size in _BATCHES:
        yield _step(course, some, f"batches of {batch_size}", batch_size=batch_size)
    for threads in sorted({1, cores() // 2 or 1, cores()}):
        yield _step(course, some, f"{threads} threads", threads=threads)
    for share in _CORRUPT:
        damaged = replace(CROPS, name=f"crops-224x224-{share:.0%}-corrupt", corrupt=share).draw(course.scratch)
        yield _step(course, damaged, f"{share:.0%} of the files corrupt")


def _step(course: Course, folder: Path, name: str, case: str = "end-to-end", **settings: Any) -> Entrant:
    (entrant,) = cases(replace(course, folder=folder), [case], **settings)
    return replace(entrant, name=name)
