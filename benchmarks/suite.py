"""One run of the suite: every case takes its turn, several times over."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.cases import PEER, PLAIN
from benchmarks.record import Record, commit, now
from benchmarks.sample import Sample, take

_SOME_IMAGES = 256
"""What cases take that need not go through all of a folder: peers are slow, and as fast on few files as on many."""
_SOME_IMAGES_ON_A_GPU = 20_000


def run_suite(
    folder: Path,
    workload: str,
    engine: Path,
    cases: Sequence[str],
    *,
    repeats: int,
    console: Console,
    device: str = "cpu",
) -> list[Record]:
    """Measure ``cases`` on the images below ``folder``, in turns, and return a record of each."""
    some_images = _SOME_IMAGES if device == "cpu" else _SOME_IMAGES_ON_A_GPU
    started = now()
    samples: dict[str, list[Sample]] = {case: [] for case in cases}
    for repeat in range(repeats):
        for case in cases:
            sample = take(case, folder, engine, some_images, device)
            samples[case].append(sample)
            speed = f"{sample.images / sample.elapsed_s:,.1f} images/s"
            console.print(f"{workload}, {repeat + 1} of {repeats}, {case}: {speed}", highlight=False)
    reference = next((taken[0].labels for case, taken in samples.items() if case.startswith(f"{PEER} {PLAIN}")), {})
    return [
        Record(
            case=case,
            workload=workload,
            images=taken[0].images,
            samples_s=tuple(sample.elapsed_s for sample in taken),
            peak_memory_bytes=max(sample.peak_memory_bytes for sample in taken),
            settings={"device": device},
            top1_agreement=_agreement(taken[0].labels, reference),
            commit=commit(),
            run=started,
        )
        for case, taken in samples.items()
    ]


def _agreement(labels: Mapping[str, str | None], reference: Mapping[str, str | None]) -> float | None:
    """Share of the files that both name whose label is the same."""
    shared = labels.keys() & reference.keys()
    return sum(labels[path] == reference[path] for path in shared) / len(shared) if shared else None
