"""One measurement of one case, taken in a process of its own."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Sample:
    """How long a case took, and what it answered."""

    elapsed_s: float
    """From everything loaded and warm to the last answer, or the last row on disk."""
    images: int
    labels: Mapping[str, str | None] = field(default_factory=dict)
    """By path; empty where the case answers nothing."""
    peak_memory_bytes: int = 0


def take(case: str, folder: Path, engine: Path, images: int, device: str) -> Sample:
    """Measure ``case`` once in a new process, so that no case's threads or caches are another's.

    Args:
        images: How many of the folder's to use, where the case need not use all of them.
        device: ``cpu`` or ``cuda:N``.
    """
    command = [sys.executable, "-m", "benchmarks.sample", case, str(folder), str(engine), str(images), device]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return Sample(**json.loads(done.stdout.splitlines()[-1]))


def _main() -> None:
    from batchcls.machine import peak_memory_bytes
    from benchmarks.cases import CASES

    case, folder, engine, images, device = sys.argv[1:]
    sample = CASES[case](Path(folder), Path(engine), int(images), device)
    print(json.dumps(asdict(sample) | {"peak_memory_bytes": peak_memory_bytes()}))  # noqa: T201


if __name__ == "__main__":
    _main()
