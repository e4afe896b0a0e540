"""The options of a run."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any, get_args

from batchcls.engine.backends import BackendName
from batchcls.errors import EngineError
from batchcls.images.decoders import DecoderName
from batchcls.storage.shards import Shard
from batchcls.storage.timeouts import READ_TIMEOUT_S

_DEVICES = re.compile(r"auto|cpu|all|cuda(:\d{1,3})?", re.ASCII)
CLUSTER_ADDRESS = re.compile(r"ray|(?:ray://)?\[?([^\[\]/@\s]+?)\]?:(\d{1,5})", re.ASCII)
"""``ray``, or the address of a cluster's head with the groups host and port."""
_CHOICES = {"backend": get_args(BackendName), "precision": ("fp32", "bf16"), "decoder": get_args(DecoderName)}
_RANGES: dict[str, tuple[type, float, float]] = {
    "batch_size": (Integral, 1, 4096),
    "threads": (Integral, 1, 1024),
    "processes": (Integral, 1, 64),
    "max_pixels": (Integral, 1, 10**11),
    "memory": (Integral, 1, 1 << 60),
    "read_timeout_s": (Real, 0.001, 86_400),
    "rows_per_file": (Integral, 1, 10**9),
    "novel_above": (Real, 0.5, 1),
    "top": (Integral, 1, 1000),
    "coverage": (Real, 0.5, 0.9999),
}
"""Type, least and greatest value of each number, as on the command line."""
_SWITCHES = ("overwrite", "update", "prune", "by_content", "allow_remote", "embeddings")
_NEEDED = ("max_pixels", "read_timeout_s", "novel_above")
"""Numbers that have no default of None."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The options of a run; none of them changes which files get a row.

    Raises:
        EngineError: If an option has a value that the command line refuses as well.
    """

    device: str = "auto"
    """``auto``, ``cpu``, ``cuda``, ``cuda:N``, or ``all`` for every GPU."""
    backend: BackendName | None = None
    """Runtime of the engine; None for the fastest one that is installed for the device."""
    precision: str | None = None
    """``fp32`` or ``bf16`` on a CPU; None for the fastest precision that the CPU has in hardware."""
    decoder: DecoderName | None = None
    """Image decoder; None for the fastest one on the device."""
    batch_size: int | None = None
    """Images in a batch; None for the size that the engine is fastest with."""
    threads: int | None = None
    """CPU threads that decode, and as many that infer, in all processes together; None for one a core that this process
    may use."""
    processes: int | None = None
    """Processes for each device; None for one."""
    cluster: str | None = None
    """Ray cluster to classify on: ``ray``, ``HOST:PORT`` or ``ray://HOST:PORT``, as
    `batchcls.inference.ray_cluster.RayCluster` takes it; None for this machine alone. On a cluster, threads, processes
    and memory are those of each node."""
    max_pixels: int = 200_000_000
    """Pixels of the largest image that is decoded."""
    read_timeout_s: float = READ_TIMEOUT_S
    """Seconds that the file system may take for one answer."""
    memory: int | None = None
    """Bytes that all processes of the run may take together; None for the memory that is resident when the run begins,
    and half of what is available then."""
    overwrite: bool = False
    """Whether an existing predictions file is replaced."""
    shard: Shard | None = None
    """Shard of the slides that is classified, into a file of its own in a folder; None: all slides, into one file."""
    rows_per_file: int | None = None
    """Most rows of each file of a folder of Parquet files; None for one file."""
    update: bool = False
    """Whether an existing predictions file is brought up to date: new and changed files are classified."""
    prune: bool = False
    """Whether an update drops the rows of files that are gone."""
    by_content: bool = False
    """Whether rows hold the digests of their files, by which an update tells changed files."""
    novel_above: float = 0.99
    """Least novelty, 0 to 1, of an image that counts as novel, where the engine tells novelty."""
    coverage: float | None = None
    """Share of images, 0 to 1, whose true label the set of labels shall hold; None for the highest that the engine
    promises, if it promises any."""
    top: int | None = None
    """Number of the best labels that each row lists; None for none."""
    embeddings: bool = False
    """Whether rows hold the embeddings of their images."""
    root: str | Path | None = None
    """Folder of the relative paths in lists and tables; None for the folder that each list or table is in."""
    allow_remote: bool = False
    """Whether lists and tables may name URLs."""
    keep: Sequence[str] = ()
    """Columns of tables that the predictions carry on."""

    def __post_init__(self) -> None:
        if self.shard and self.rows_per_file:
            raise EngineError(f"rows_per_file is {self.rows_per_file}; a shard has one file: leave it out")
        self._check_values()
        if self.root is not None and not (isinstance(self.root, str | Path) and self.root and os.path.isdir(self.root)):
            raise EngineError(f"root is {self.root!r}; use a folder that exists, or leave it out")
        names = self.keep if isinstance(self.keep, Sequence) and not isinstance(self.keep, str) else [None]
        if not all(isinstance(name, str) for name in names):
            raise EngineError(f"keep is {self.keep!r}; use a list of columns' names, such as ['patient', 'slide']")

    def _check_switches(self) -> None:
        for name in _SWITCHES:
            if not isinstance(getattr(self, name), bool):
                raise EngineError(f"{name} is {getattr(self, name)!r}; use True or False")
        if self.update and self.overwrite:
            raise EngineError("update and overwrite were asked for; an update keeps rows: leave one of them out")
        if self.prune and not self.update:
            raise EngineError("prune was asked for without update, which alone drops rows; add it, or leave prune out")

    def _check_values(self) -> None:
        if not isinstance(self.device, str) or not _DEVICES.fullmatch(self.device):
            raise EngineError(f"device is {self.device!r}; use auto, cpu, cuda, cuda:N, or all for every GPU")
        cluster = self.cluster
        if cluster is not None and not (isinstance(cluster, str) and CLUSTER_ADDRESS.fullmatch(cluster)):
            raise EngineError(f"cluster is {cluster!r}; use ray, HOST:PORT, or ray://HOST:PORT for Ray Client")
        for name, allowed in _CHOICES.items():
            choice = getattr(self, name)
            if choice is not None and choice not in allowed:
                raise EngineError(f"{name} is {choice!r}; use one of {', '.join(allowed)}, or leave it out")
        self._check_switches()
        for name, (kind, least, most) in _RANGES.items():
            value: Any = getattr(self, name)
            if value is None and name not in _NEEDED:
                continue
            number_type: Any = kind
            if not isinstance(value, number_type) or not least <= value <= most:
                number = "a whole number" if kind is Integral else "a number"
                raise EngineError(f"{name} is {value!r}; it must be {number} from {least:,} to {most:,}")
            if type(value) not in (int, float):  # NumPy's numbers are none that JSON can hold
                object.__setattr__(self, name, int(value) if kind is Integral else float(value))
