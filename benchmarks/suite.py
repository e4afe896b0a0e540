"""One run of the suite: every case and every peer is measured in turn, several times over."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console

from batchcls.engine.manifest import Manifest
from batchcls.inference.options import RunOptions
from batchcls.inference.run import classify_images
from benchmarks.cases import CASES
from benchmarks.checkout import THIS_CHECKOUT
from benchmarks.measure import ProcessOptions, measure_case
from benchmarks.networks import int8_engine, prepare_network
from benchmarks.peers.registry import PEERS, Peer, measure_peer
from benchmarks.record import Record, checkout_commit, utc_now
from benchmarks.sample import Sample, Task
from benchmarks.slow_disk import slow_disk_variables

_PEER_IMAGES = 128
"""Number of images for each peer on a CPU: peers are slow, and no faster on more files."""
_PRESELECTION_IMAGES = 64
"""Number of images for choosing the fastest of several peers on a CPU."""
_ENGINE_IMAGES = 512
"""Number of images for an engine alone on a CPU."""
_GPU_IMAGES = 20_000
"""Number of images for each of these on a GPU, which would process fewer images before it is warm."""

Answers = Mapping[str, Sequence[float] | None]
"""Probabilities by file path; None for an unreadable file."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A case or a peer that takes part in a run of the suite."""

    name: str
    """Name in records and tables."""
    measure: Callable[[], Sample]
    """Takes one measurement."""
    network: str = "googlenet"
    """One of `benchmarks.networks.NAMES`."""
    settings: Mapping[str, Any] | None = None
    """JSON values for the record's ``settings``."""
    checkout: Path | None = None
    """Checkout whose batchcls is measured; None for the one that is imported."""


@dataclass(frozen=True, slots=True)
class SuiteConfig:
    """The images, the engine and the device that all candidates of one run share."""

    workload: str
    """Name of the workload in records."""
    folder: Path
    """Folder of the workload's images."""
    engine: Path
    """Engine folder under test."""
    scratch: Path
    """Folder for drawn images, prepared networks and reference answers; kept between runs."""
    device: str
    """``cpu`` or ``cuda:N``."""
    console: Console
    """Console that progress is printed to."""
    checkout: Path | None = None
    """Checkout whose batchcls is measured, as `ProcessOptions` has it."""

    @property
    def files(self) -> list[Path]:
        """All files of the workload, sorted."""
        return sorted(path for path in self.folder.rglob("*") if path.is_file())

    def spread_files(self, count: int) -> list[Path]:
        """About ``count`` of the files, evenly spread."""
        files = self.files
        return files[:: max(1, len(files) // count)]


def case_candidates(config: SuiteConfig, names: Iterable[str], **settings: Any) -> list[Candidate]:
    """A candidate for each named case.

    Args:
        names: Keys of `benchmarks.cases.CASES`.
        settings: Fields of `RunOptions` that differ from their defaults.
    """
    images = _ENGINE_IMAGES if config.device == "cpu" else _GPU_IMAGES
    candidates = []
    for name in names:
        case = CASES[name]
        engine = int8_engine(config.engine, config.scratch) if case.engine == "int8" else config.engine
        task = Task(config.folder, engine, images, config.device, {**case.settings, **settings})
        variables = slow_disk_variables(config.folder, config.scratch) if case.slow_disk else {}
        measure = partial(measure_case, name, task, ProcessOptions(variables, case.cores, config.checkout))
        candidates.append(Candidate(name, measure, settings=task.settings, checkout=config.checkout))
    return candidates


def compared_candidates(config: SuiteConfig, other: Path, names: Sequence[str]) -> list[Candidate]:
    """Two candidates for each named case, with the batchcls of another checkout and with that of this one.

    Args:
        config: Images and engine of the run.
        other: The other checkout.
        names: Keys of `benchmarks.cases.CASES`.
    """
    sides = [case_candidates(replace(config, checkout=checkout), names) for checkout in (other, THIS_CHECKOUT)]
    return list(chain.from_iterable(zip(*sides, strict=True)))


def peer_candidates(config: SuiteConfig, names: Iterable[str]) -> list[Candidate]:
    """A candidate for each named peer, but only for the fastest of peers that differ in their number of workers.

    A peer with a network other than the engine's is followed by an end-to-end run of batchcls on that network.

    Args:
        names: Keys of `benchmarks.peers.registry.PEERS`.
    """
    candidates: list[Candidate] = []
    groups: dict[tuple[str, str], list[Peer]] = {}
    for name in names:
        peer = PEERS[name]
        groups.setdefault((peer.script, str(peer.settings.get("mode"))), []).append(peer)
    for group in groups.values():
        peer, preselection_speeds = _fastest_peer(config, group)
        network = prepare_network(peer.network, config.scratch, config.engine)
        files = config.spread_files(_PEER_IMAGES if config.device == "cpu" else _GPU_IMAGES)
        measure = partial(measure_peer, peer, config.folder, files, network, config.device)
        settings = {"heat_images_per_s": preselection_speeds} if preselection_speeds else None
        candidates.append(Candidate(peer.name, measure, peer.network, settings))
        if peer.network != "googlenet":
            task = Task(config.folder, network.engine, len(files), config.device)
            measure = partial(measure_case, "end-to-end", task)
            candidates.append(Candidate(f"end-to-end, {peer.network}", measure, peer.network))
    return candidates


def run_suite(config: SuiteConfig, candidates: Sequence[Candidate], *, repeats: int) -> list[Record]:
    """Measure all candidates in turn, ``repeats`` times, and return one record for each."""
    start = utc_now()
    commits = [checkout_commit(candidate.checkout or Path()) for candidate in candidates]
    samples: list[list[Sample]] = [[] for _ in candidates]
    for turn in range(repeats):
        for candidate, taken in zip(candidates, samples, strict=True):
            taken.append(sample := candidate.measure())
            speed = f"{sample.images / sample.elapsed_s:,.1f} images/s"
            name = f"{candidate.name} of {candidate.checkout}" if candidate.checkout else candidate.name
            progress = f"{config.workload}, {turn + 1} of {repeats}, {name}: {speed}"
            config.console.print(progress, highlight=False, soft_wrap=True)
    references = {"googlenet": partial(reference_answers, config)}
    for candidate, taken in zip(candidates, samples, strict=True):
        if candidate.name in {peer.name for peer in PEERS.values()} and candidate.network != "googlenet":
            references[candidate.network] = partial(dict, taken[0].answers)
    return [
        replace(_record(config, candidate, taken, references, start), commit=commit)
        for candidate, taken, commit in zip(candidates, samples, commits, strict=True)
    ]


def reference_answers(config: SuiteConfig) -> Answers:
    """Answers of the trained network for every file, computed by Pillow and float32 PyTorch.

    The answers are stored in ``config.scratch`` and reused as long as the engine and the files are the same. Hard links
    to one file share its answer.
    """
    statuses = {file: file.stat() for file in config.files}
    first_links: dict[tuple[int, int], Path] = {}
    for file, status in statuses.items():
        first_links.setdefault((status.st_dev, status.st_ino), file)
    contents = [(str(file), statuses[file].st_size, statuses[file].st_mtime_ns) for file in first_links.values()]
    digest = hashlib.sha256(repr((Manifest.read(config.engine).onnx_sha256, contents)).encode()).hexdigest()[:12]
    path = config.scratch / "reference" / f"{config.folder.name}-{digest}.parquet"
    if not path.exists():
        config.console.print(f"{config.workload}: computing the reference answers by Pillow and float32 PyTorch")
        path.parent.mkdir(parents=True, exist_ok=True)
        options = RunOptions(device="cpu", backend="torch", decoder="pillow")
        classify_images(list(first_links.values()), config.engine, path, options, Console(quiet=True))
    rows = pq.read_table(path, columns=["root", "path", "probabilities"]).to_pylist()
    answers = {Path(row["root"], row["path"]): row["probabilities"] for row in rows}
    return {
        str(file.relative_to(config.folder)): answers[first_links[status.st_dev, status.st_ino]]
        for file, status in statuses.items()
    }


def agreement(answers: Answers, reference: Answers) -> tuple[float | None, float | None]:
    """Top-1 agreement, and the largest absolute difference of a probability, over the files that both sides answer.

    Returns:
        The fraction of files with the same most probable class, and the difference; both None if there are no such
        files.
    """
    shared = [path for path in answers.keys() & reference.keys() if answers[path] and reference[path]]
    if not shared:
        return None, None
    probabilities, expected = (np.array([side[path] for path in shared], np.float64) for side in (answers, reference))
    same = probabilities.argmax(axis=1) == expected.argmax(axis=1)
    return float(same.mean()), float(np.abs(probabilities - expected).max())


def _fastest_peer(config: SuiteConfig, group: Sequence[Peer]) -> tuple[Peer, dict[str, float]]:
    """The fastest peer of ``group``, and the measured speed of each in images/s; no speeds for a group of one peer."""
    if len(group) == 1:
        return group[0], {}
    files = config.spread_files(_PRESELECTION_IMAGES if config.device == "cpu" else _GPU_IMAGES)
    speeds = {}
    for peer in group:
        network = prepare_network(peer.network, config.scratch, config.engine)
        sample = measure_peer(peer, config.folder, files, network, config.device)
        speeds[peer.name] = sample.images / sample.elapsed_s
        progress = f"{config.workload}, heat, {peer.name}: {speeds[peer.name]:,.1f} images/s"
        config.console.print(progress, highlight=False)
    return max(group, key=lambda peer: speeds[peer.name]), speeds


def _record(
    config: SuiteConfig,
    candidate: Candidate,
    samples: Sequence[Sample],
    references: Mapping[str, Callable[[], Answers]],
    start: str,
) -> Record:
    last = samples[-1]
    top1_agreement, largest_difference = None, None
    if last.answers and candidate.network in references:
        top1_agreement, largest_difference = agreement(last.answers, references[candidate.network]())
    return Record(
        case=candidate.name,
        workload=config.workload,
        images=last.images,
        samples_s=tuple(sample.elapsed_s for sample in samples),
        samples_cpu_s=tuple(sample.details["cpu_s"] for sample in samples if "cpu_s" in sample.details),
        peak_memory_bytes=max(sample.peak_memory_bytes for sample in samples),
        top1_agreement=top1_agreement,
        largest_difference=largest_difference,
        settings={"device": config.device, "network": candidate.network, **(candidate.settings or {})},
        details=dict(last.details),
        run=start,
    )
