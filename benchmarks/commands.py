"""Cases that run a command of batchcls, from its start to its exit."""

import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path
from time import perf_counter

import pyarrow.parquet as pq

from batchcls.engine.manifest import Manifest
from benchmarks.peers.memory import MemoryWatch
from benchmarks.processes import cpu_seconds
from benchmarks.sample import Sample, Task


def measure_start_up(task: Task) -> Sample:
    """Run the command `batchcls run` on one image, from its start to its exit."""
    (file,) = islice((path for path in sorted(task.folder.rglob("*")) if path.is_file()), 1)
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "batchcls", "run", str(file), "--engine", str(task.engine)]
        since = perf_counter()
        subprocess.run([*command, "--device", task.device, "--quiet", "--out", f"{scratch}/preds.parquet"], check=True)
        return Sample(perf_counter() - since, 1)


def measure_command(task: Task) -> Sample:
    """Run the command `batchcls run` on the whole folder, from its start to its exit, with the memory of all processes.

    The options that ``task.settings`` names are the command's.
    """
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "preds.parquet"
        command = [sys.executable, "-m", "batchcls", "run", str(task.folder), "--engine", str(task.engine), "--quiet"]
        command += ["--device", task.device, "--out", str(out)]
        command += [f"--{option.replace('_', '-')}={value}" for option, value in task.settings.items()]
        since, cpu_since = perf_counter(), cpu_seconds()
        with subprocess.Popen(command) as process, MemoryWatch(process.pid) as watch:
            process.wait()
            elapsed_s = perf_counter() - since
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command)
        details = {"cpu_s": cpu_seconds() - cpu_since}
        return Sample(elapsed_s, pq.read_metadata(out).num_rows, peak_memory_bytes=watch.peak_bytes, details=details)


def measure_build(task: Task) -> Sample:
    """Run the command `batchcls build` on the engine's own network, without verification on images."""
    from benchmarks.networks import prepare_network  # imported here: PyTorch would count in the memory of other cases

    labels = ",".join(Manifest.read(task.engine).labels)
    with tempfile.TemporaryDirectory() as scratch:
        weights = prepare_network("googlenet", Path(scratch), task.engine).weights
        command = [sys.executable, "-m", "batchcls", "build", str(weights), "--labels", labels]
        since = perf_counter()
        command += ["--device", task.device, "--out", f"{scratch}/engine"]
        subprocess.run(command, check=True, stdout=sys.stderr)
        return Sample(perf_counter() - since, 1)
