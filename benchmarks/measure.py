"""One case of batchcls, measured in a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from benchmarks.sample import Sample, Task


def measure_case(case: str, task: Task, variables: Mapping[str, str] | None = None) -> Sample:
    """Measure ``case`` once in a new process, so that cases share no threads and no caches.

    Args:
        case: A key of `benchmarks.cases.CASES`.
        variables: Environment variables of the new process, in addition to the current ones.
    """
    request = {"case": case, **asdict(task), "folder": str(task.folder), "engine": str(task.engine)}
    completed = subprocess.run(
        [sys.executable, "-m", "benchmarks.measure"],
        input=json.dumps(request),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=os.environ | (variables or {}),
    )
    return Sample(**json.loads(completed.stdout.splitlines()[-1]))


def _main() -> None:
    from batchcls.machine import peak_memory_bytes  # here, because a run's spawned processes import this module again
    from benchmarks.cases import CASES

    request = json.load(sys.stdin)
    case = CASES[request.pop("case")]
    task = Task(**request | {"folder": Path(request["folder"]), "engine": Path(request["engine"])})
    sample = case.measure(task)
    print(json.dumps(asdict(sample) | {"peak_memory_bytes": peak_memory_bytes()}))  # noqa: T201


if __name__ == "__main__":
    _main()
