"""One run of the suite: every case and every peer takes its turn, several times over."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console

from batchcls.engine.manifest import Manifest
from batchcls.inference.options import RunOptions
from batchcls.inference.run import classify_images
from benchmarks import networks, peers, slow_disk
from benchmarks.cases import CASES
from benchmarks.peers import PEERS, Peer
from benchmarks.record import Record, commit, now
from benchmarks.sample import Sample, Task, take

_SOME_IMAGES = 128
"""What is enough where not all of a folder is needed: peers are slow, and as fast on few files as on many."""
_HEAT_IMAGES = 64
_ENGINE_IMAGES = 512
_MANY_IMAGES = 20_000
"""On a GPU, which would be done with less before it is warm."""

Answers = Mapping[str, Sequence[float] | None]


@dataclass(frozen=True, slots=True)
class Entrant:
    """What takes turns with the others."""

    name: str
    take: Callable[[], Sample]
    network: str = "googlenet"
    settings: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Course:
    """A folder of images, and what all entrants run on it share."""

    workload: str
    folder: Path
    engine: Path
    scratch: Path
    device: str
    console: Console

    @property
    def files(self) -> list[Path]:
        return sorted(path for path in self.folder.rglob("*") if path.is_file())

    def some_files(self, count: int) -> list[Path]:
        """About ``count`` of the files, evenly spread."""
        files = self.files
        return files[:: max(1, len(files) // count)]


def cases(course: Course, names: Iterable[str], **settings: Any) -> list[Entrant]:
    """The named cases as entrants."""
    images = _ENGINE_IMAGES if course.device == "cpu" else _MANY_IMAGES
    entrants = []
    for name in names:
        case = CASES[name]
        engine = networks.int8(course.engine, course.scratch) if case.engine == "int8" else course.engine
        task = Task(course.folder, engine, images, course.device, settings)
        variables = slow_disk.environment(course.folder, course.scratch) if case.slow_disk else None
        entrants.append(Entrant(name, partial(take, name, task, variables), settings=settings))
    return entrants


def rivals(course: Course, names: Iterable[str]) -> list[Entrant]:
    """The named peers as entrants; of those that differ in their workers alone, the fastest.

    A peer whose network is another than the engine's brings along a run of batchcls on that network.
    """
    entrants: list[Entrant] = []
    groups: dict[tuple[str, str], list[Peer]] = {}
    for name in names:
        peer = PEERS[name]
        groups.setdefault((peer.script, str(peer.settings.get("mode"))), []).append(peer)
    for group in groups.values():
        peer, heat = _fastest(course, group)
        network = networks.prepared(peer.network, course.scratch, course.engine)
        files = course.some_files(_SOME_IMAGES if course.device == "cpu" else _MANY_IMAGES)
        run = partial(peers.take, peer, course.folder, files, network, course.device)
        entrants.append(Entrant(peer.name, run, peer.network, {"heat_images_per_s": heat} if heat else None))
        if peer.network != "googlenet":
            task = Task(course.folder, network.engine, len(files), course.device)
            entrants.append(Entrant(f"end-to-end, {peer.network}", partial(take, "end-to-end", task), peer.network))
    return entrants


def run_suite(course: Course, entrants: Sequence[Entrant], *, repeats: int) -> list[Record]:
    """Measure ``entrants`` in turns, and return a record of each."""
    started = now()
    samples: dict[str, list[Sample]] = {entrant.name: [] for entrant in entrants}
    for turn in range(repeats):
        for entrant in entrants:
            sample = entrant.take()
            samples[entrant.name].append(sample)
            speed = f"{sample.images / sample.elapsed_s:,.1f} images/s"
            said = f"{course.workload}, {turn + 1} of {repeats}, {entrant.name}: {speed}"
            course.console.print(said, highlight=False, soft_wrap=True)
    references = {"googlenet": partial(reference, course)}
    for entrant in entrants:
        if entrant.name in {peer.name for peer in PEERS.values()} and entrant.network != "googlenet":
            references[entrant.network] = partial(dict, samples[entrant.name][0].answers)
    return [_record(course, entrant, samples[entrant.name], references, started) for entrant in entrants]


def reference(course: Course) -> Answers:
    """What the trained network says of every file, by Pillow and float32 PyTorch; kept, for it takes a while."""
    sizes = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in course.files]
    digest = hashlib.sha256(repr((Manifest.read(course.engine).onnx_sha256, sizes)).encode()).hexdigest()[:12]
    kept = course.scratch / "reference" / f"{course.folder.name}-{digest}.parquet"
    if not kept.exists():
        course.console.print(f"{course.workload}: answering all of it by Pillow and float32 PyTorch")
        kept.parent.mkdir(parents=True, exist_ok=True)
        options = RunOptions(device="cpu", backend="torch", decoder="pillow")
        classify_images([course.folder], course.engine, kept, options, Console(quiet=True))
    table = pq.read_table(kept, columns=["path", "probabilities"])
    return dict(zip(*(column.to_pylist() for column in table.columns), strict=True))


def _fastest(course: Course, group: Sequence[Peer]) -> tuple[Peer, dict[str, float]]:
    if len(group) == 1:
        return group[0], {}
    files = course.some_files(_HEAT_IMAGES if course.device == "cpu" else _MANY_IMAGES)
    speeds = {}
    for peer in group:
        network = networks.prepared(peer.network, course.scratch, course.engine)
        sample = peers.take(peer, course.folder, files, network, course.device)
        speeds[peer.name] = sample.images / sample.elapsed_s
        course.console.print(
            f"{course.workload}, heat, {peer.name}: {speeds[peer.name]:,.1f} images/s", highlight=False
        )
    return max(group, key=lambda peer: speeds[peer.name]), speeds


def _record(
    course: Course,
    entrant: Entrant,
    samples: Sequence[Sample],
    references: Mapping[str, Callable[[], Answers]],
    started: str,
) -> Record:
    last = samples[-1]
    agreement, difference = None, None
    if last.answers and entrant.network in references:
        agreement, difference = compared(last.answers, references[entrant.network]())
    return Record(
        case=entrant.name,
        workload=course.workload,
        images=last.images,
        samples_s=tuple(sample.elapsed_s for sample in samples),
        peak_memory_bytes=max(sample.peak_memory_bytes for sample in samples),
        top1_agreement=agreement,
        largest_difference=difference,
        settings={"device": course.device, "network": entrant.network, **(entrant.settings or {})},
        details=dict(last.details),
        commit=commit(),
        run=started,
    )


def compared(answers: Answers, reference: Answers) -> tuple[float | None, float | None]:
    """Share of the files whose most probable class is the same, and the largest difference of a probability.

    Over the files that both answer.
    """
    shared = [path for path in answers.keys() & reference.keys() if answers[path] and reference[path]]
    if not shared:
        return None, None
    ours, theirs = (np.array([of[path] for path in shared], np.float64) for of in (answers, reference))
    same = ours.argmax(axis=1) == theirs.argmax(axis=1)
    return float(same.mean()), float(np.abs(ours - theirs).max())
