"""Raw measurements, stored as one JSON line each: never rounded, and statistics are computed on reading."""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Self

from batchcls import machine

RESULTS = Path(__file__).parent / "results"
"""Folder of the committed records, one JSON Lines file for each day of measuring."""
MIN_SAMPLES = 5
"""Fewest samples of a record that is reported."""


@dataclass(frozen=True, slots=True)
class Record:
    """Repeated measurements of one case or peer on one workload, within one run of the suite."""

    case: str
    """Name of the case or the peer."""
    workload: str
    """Name of the workload."""
    images: int
    """Number of images in each sample."""
    samples_s: tuple[float, ...]
    """Wall time for ``images`` images, one value for each turn."""
    peak_memory_bytes: int
    """Largest resident memory of all turns, of all processes that read, decode and classify."""
    top1_agreement: float | None = None
    """Fraction of files with the same label as from the trained network in float32 PyTorch with Pillow's pixels.

    None for cases that classify nothing.
    """
    largest_difference: float | None = None
    """Largest absolute difference of a probability from that float32 network; None for cases that classify nothing."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Device, network, and options that differ from their defaults."""
    details: dict[str, Any] = field(default_factory=dict)
    """Further values that the last turn reported."""
    machine: dict[str, Any] = field(default_factory=machine.description)
    """Description of the machine: CPU, GPUs, and versions of the libraries."""
    commit: str = ""
    """Commit of the checkout, see `checkout_commit`."""
    run: str = ""
    """Start of the run of the suite in UTC, ISO 8601; equal in all records of that run."""
    samples_cpu_s: tuple[float, ...] = ()
    """CPU time of all processes of the case for ``images`` images, one value for each turn; empty if not measured."""

    @property
    def speeds(self) -> list[float]:
        """Images/s of each turn."""
        return [self.images / sample_s for sample_s in self.samples_s]

    @property
    def cpu_us_per_image(self) -> float:
        """Median CPU time for one image in microseconds.

        Raises:
            StatisticsError: If it was not measured.
        """
        return median(self.samples_cpu_s) / self.images * 1e6

    @property
    def arithmetic(self) -> str:
        """Hardware that computed the network: the GPU's name, or the CPU's vector and matrix instruction sets."""
        if self.settings.get("device", "cpu") != "cpu":
            return str(self.machine["gpus"][0]["name"])
        features = self.machine["cpu_features"]
        widest = "AVX-512" if "avx512f" in features else "AVX2"
        extensions = [word for word in ("bf16", "vnni", "amx") if any(word in feature for feature in features)]
        return ", ".join([widest, *map(str.upper, extensions)])

    @property
    def images_per_s(self) -> float:
        """Median speed of all turns."""
        return median(self.speeds)

    def append(self, path: Path) -> None:
        """Add the record to a JSON Lines file, which is created if missing."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(asdict(self)) + "\n")

    @classmethod
    def read_all(cls, path: Path) -> Iterator[Self]:
        """Every record of a JSON Lines file, in order."""
        for line in path.read_text(encoding="utf-8").splitlines():
            values = json.loads(line)
            samples = {key: tuple(values.get(key, ())) for key in ("samples_s", "samples_cpu_s")}
            yield cls(**values | samples)


def checkout_commit(checkout: Path) -> str:
    """The commit of a checkout, with the suffix ``-dirty`` if a file has changed since; empty without git."""
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:  # a measurement is worth keeping without its commit
        return ""


def utc_now() -> str:
    """The current time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
