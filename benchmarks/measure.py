"""One case of batchcls, measured in a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from benchmarks.sample import Sample, Task


@dataclass(frozen=True, slots=True)
class ProcessOptions:
    """The process in which a case is measured."""

    variables: Mapping[str, str] = field(default_factory=dict)
    """Environment variables, in addition to those of this process."""
    cores: int = 0
    """Largest number of CPU cores that the process and its descendants may use; 0 for all."""
    checkout: Path | None = None
    """Checkout whose batchcls is measured; None for the batchcls that this process has imported."""


def measure_case(case: str, task: Task, options: ProcessOptions | None = None) -> Sample:
    """Measure ``case`` once in a new process, so that cases share no threads and no caches.

    Args:
        case: A key of `benchmarks.cases.CASES`.
        options: The new process; None for one like this process.

    Raises:
        CalledProcessError: If the case fails, whose traceback is on stderr; also if the checkout has no batchcls.
    """
    from benchmarks.checkout import import_variables  # here, because the new process imports this module too

    options = options or ProcessOptions()
    request = {
        "case": case,
        "task": asdict(task) | {"folder": str(task.folder), "engine": str(task.engine)},
        "cores": options.cores,
        "checkout": str(options.checkout.resolve()) if options.checkout else "",
    }
    with ExitStack() as stack:
        import_path = stack.enter_context(import_variables(options.checkout)) if options.checkout else {}
        completed = subprocess.run(
            [sys.executable, "-m", "benchmarks.measure"],
            input=json.dumps(request),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            env=os.environ | options.variables | import_path,
        )
    return Sample(**json.loads(completed.stdout.splitlines()[-1]))


def _main() -> None:
    request = json.load(sys.stdin)
    if request["cores"]:  # before any library starts threads
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: request["cores"]])
    sample = _measured(request["case"], request["task"], request["checkout"])
    print(json.dumps(asdict(sample)))  # noqa: T201


def _measured(case: str, task: Mapping[str, str], checkout: str) -> Sample:
    import batchcls  # here, because a run's spawned processes import this module again
    from batchcls.machine import cores, peak_memory_bytes
    from benchmarks.cases import CASES

    package = Path(batchcls.__file__).resolve().parent
    if checkout and package != Path(checkout) / "batchcls":
        raise RuntimeError(f"batchcls of {checkout} was to be measured, and {package} was imported")
    inputs = {**task, "folder": Path(task["folder"]), "engine": Path(task["engine"])}
    sample = CASES[case].measure(Task(**inputs))  # type: ignore[arg-type]  # the others come from a Task as well
    return replace(
        sample,
        peak_memory_bytes=sample.peak_memory_bytes or peak_memory_bytes(),
        details={**sample.details, "cores": cores(), "batchcls": batchcls.__version__},
    )


if __name__ == "__main__":
    _main()
