"""Raw measurements, one JSON line each; nothing is rounded, and statistics are worked out when they are read."""

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
LEAST_SAMPLES = 5


@dataclass(frozen=True, slots=True)
class Record:
    """One case on one workload, measured several times within one run of the suite."""

    case: str
    workload: str
    images: int
    samples_s: tuple[float, ...]
    """Wall time for ``images`` images, once for each repeat; the cases of a run take turns."""
    peak_memory_bytes: int
    """Resident memory: of a case its process, of a peer all of its processes; the largest of all repeats."""
    top1_agreement: float | None = None
    """With the trained network in float32 PyTorch behind Pillow, on the same files; None where nothing is answered."""
    largest_difference: float | None = None
    """Likewise, of a probability."""
    settings: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    """What the last repeat told besides."""
    machine: dict[str, Any] = field(default_factory=machine.description)
    commit: str = ""
    run: str = ""
    """The same for every record of one run of the suite; UTC, ISO 8601."""

    @property
    def speeds(self) -> list[float]:
        """Images/s of each repeat."""
        return [self.images / sample_s for sample_s in self.samples_s]

    @property
    def arithmetic(self) -> str:
        """What computed it: the GPU's name, or those of the CPU's instructions that networks are computed with."""
        if self.settings.get("device", "cpu") != "cpu":
            return str(self.machine["gpus"][0]["name"])
        features = self.machine["cpu_features"]
        widest = "AVX-512" if "avx512f" in features else "AVX2"
        more = [word for word in ("bf16", "vnni", "amx") if any(word in feature for feature in features)]
        return ", ".join([widest, *map(str.upper, more)])

    @property
    def images_per_s(self) -> float:
        return median(self.speeds)

    def append(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(asdict(self)) + "\n")

    @classmethod
    def read_all(cls, path: Path) -> Iterator[Self]:
        for line in path.read_text(encoding="utf-8").splitlines():
            values = json.loads(line)
            yield cls(**values | {"samples_s": tuple(values["samples_s"])})


def commit() -> str:
    """The checkout's commit, marked if anything in it is changed."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:  # no git: what was measured is worth keeping all the same
        return ""


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
