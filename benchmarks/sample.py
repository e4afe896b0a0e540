"""One measurement of one case, taken in a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Sample:
    """How long a case took, and what it answered."""

    elapsed_s: float
    """From everything loaded and warm to the last answer, or the last row on disk."""
    images: int
    answers: Mapping[str, Sequence[float] | None] = field(default_factory=dict)
    """The probabilities of each file, by its path; None of one that cannot be read; empty where nothing answers."""
    peak_memory_bytes: int = 0
    details: Mapping[str, Any] = field(default_factory=dict)
    """What else is worth keeping in a record; JSON values."""


@dataclass(frozen=True, slots=True)
class Task:
    """What a case is measured on."""

    folder: Path
    engine: Path
    images: int
    """How many to use, where the case need not use all of the folder's."""
    device: str = "cpu"
    """``cpu`` or ``cuda:N``."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of `batchcls.inference.options.RunOptions`, where they are not the default."""


def take(case: str, task: Task, variables: Mapping[str, str] | None = None) -> Sample:
    """Measure ``case`` once in a new process, so that no case's threads or caches are another's.

    Args:
        variables: Of the process's environment, besides ours.
    """
    wanted = {"case": case, **asdict(task), "folder": str(task.folder), "engine": str(task.engine)}
    command = [sys.executable, "-m", "benchmarks.sample"]
    done = subprocess.run(
        command,
        input=json.dumps(wanted),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=os.environ | (variables or {}),
    )
    return Sample(**json.loads(done.stdout.splitlines()[-1]))


def _main() -> None:
    from batchcls.machine import peak_memory_bytes
    from benchmarks.cases import CASES

    wanted = json.load(sys.stdin)
    case = CASES[wanted.pop("case")]
    task = Task(**wanted | {"folder": Path(wanted["folder"]), "engine": Path(wanted["engine"])})
    sample = case.measure(task)
    print(json.dumps(asdict(sample) | {"peak_memory_bytes": peak_memory_bytes()}))  # noqa: T201


if __name__ == "__main__":
    _main()
