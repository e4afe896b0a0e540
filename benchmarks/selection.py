"""The workloads, cases and peers that one ``python -m benchmarks run`` measures."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console

from batchcls import machine
from benchmarks.cases import CASES, FILE_COST_CASES
from benchmarks.peers.registry import PEERS, is_installed
from benchmarks.suite import Candidate, SuiteConfig, case_candidates, peer_candidates
from benchmarks.workload import CROPS, FIELDS, LARGER_CROPS, WORKLOADS, link_images

NONE = "none"
"""Word on the command line for no case, or no peer."""
_GPU_IMAGES = 20_480
"""Number of images of a workload on a GPU, which would process fewer images before it is warm."""
_STAGED_WORKLOADS = (FIELDS.name, CROPS.name, "crops-450x450-bmp")
"""Workloads on which each stage is measured alone, so that the hardware's limit is known."""
_ALL_PEERS_WORKLOAD = "fields-640x480"
"""The workload on which every peer is measured."""
_STAGE_CASES = ("end-to-end", "end-to-end int8", "read-only", "decode-only turbo", "engine-only", "engine-only int8")
_BRIEF_CASES = ("end-to-end", "decode-only turbo")
_LOOP_PEERS = tuple(f"torchvision-{mode}-{workers}" for mode in ("eager", "bf16") for workers in (0, 1, 2))
"""The PyTorch loops, which are measured on every workload without corrupt files."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Engine, workloads, cases and peers that the user selected; an empty tuple stands for the default."""

    engine: Path
    """Engine folder under test."""
    workloads: tuple[str, ...]
    """Names of workloads."""
    folders: tuple[Path, ...]
    """Folders of the user's own images, which take the place of workloads."""
    cases: tuple[str, ...]
    """Names of cases, or `NONE`."""
    peers: tuple[str, ...]
    """Names of peers, or `NONE`."""
    device: str
    """``cpu`` or ``cuda:N``."""

    def __post_init__(self) -> None:
        check_names(self.cases, [*CASES, NONE])
        check_names(self.peers, [*PEERS, NONE])

    def runs(self, scratch: Path, console: Console) -> Iterator[tuple[SuiteConfig, list[Candidate]]]:
        """The configuration and the candidates of each workload's run.

        Args:
            scratch: Folder for drawn images, prepared networks and reference answers.
            console: Console that progress is printed to.
        """
        folders = {folder.resolve().name: folder for folder in self.folders}
        for name in folders or self.workloads or WORKLOADS:
            folder, workload = folders.get(name) or WORKLOADS[name].draw(scratch), name
            if self.device != "cpu":
                folder, workload = link_images(folder, _GPU_IMAGES), f"{name}, {machine.gpu(self.device).name}"
            config = SuiteConfig(workload, folder, self.engine, scratch, self.device, console)
            cases = _without_none(self.cases or _default_cases(name))
            peers = _without_none(self.peers or _default_peers(name, self.device))
            yield config, [*case_candidates(config, cases), *peer_candidates(config, peers)]


def check_names(names: Sequence[str], known: Collection[str]) -> None:
    """Refuse names that are not among the known ones.

    Raises:
        click.UsageError: If a name is unknown.
    """
    for name in names:
        if name not in known:
            raise click.UsageError(f"there is no {name!r}; choose from: {', '.join(known)}")


def _without_none(names: Sequence[str]) -> list[str]:
    return [name for name in names if name != NONE]


def _default_cases(workload: str) -> Sequence[str]:
    if workload == CROPS.name:
        return list(CASES)
    if workload == LARGER_CROPS.name:
        return FILE_COST_CASES
    return _STAGE_CASES if workload in _STAGED_WORKLOADS or workload not in WORKLOADS else _BRIEF_CASES


def _default_peers(workload: str, device: str) -> list[str]:
    if workload == LARGER_CROPS.name or (workload in WORKLOADS and WORKLOADS[workload].corrupt_fraction):
        return []  # the former has no network; a DataLoader's run ends at its first corrupt file
    names = PEERS if workload == _ALL_PEERS_WORKLOAD else _LOOP_PEERS
    return [name for name in names if device.partition(":")[0] in PEERS[name].devices and is_installed(PEERS[name])]
