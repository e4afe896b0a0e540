"""One case, measured in a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from benchmarks.sample import Sample, Task


def take(case: str, task: Task, variables: Mapping[str, str] | None = None) -> Sample:
    """Measure ``case`` once in a new process, so that no case's threads or caches are another's.

    Args:
        variables: Of the process's environment, besides ours.
    """
    wanted = {"case": case, **asdict(task), "folder": str(task.folder), "engine": str(task.engine)}
    command = [sys.executable, "-m", "benchmarks.measure"]
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
    from batchcls.machine import peak_memory_bytes  # here, for a run's spawned processes import this module again
    from benchmarks.cases import CASES

    wanted = json.load(sys.stdin)
    case = CASES[wanted.pop("case")]
    task = Task(**wanted | {"folder": Path(wanted["folder"]), "engine": Path(wanted["engine"])})
    sample = case.measure(task)
    print(json.dumps(asdict(sample) | {"peak_memory_bytes": peak_memory_bytes()}))  # noqa: T201


if __name__ == "__main__":
    _main()
