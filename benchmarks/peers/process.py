"""Run the script of a peer in a process of its own."""

import json
import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

from benchmarks.peers.memory import MemoryWatch

_TIMEOUT_S = 3600.0
_ERROR_EXCERPT = 2000
"""Characters of a failed script's stderr that the error message quotes."""


def script_path(name: str) -> Path:
    """The file of a script, by its name without ``.py``."""
    return Path(__file__).parent / "scripts" / f"{name}.py"


def run_script(python: Path, script: str, job: Mapping[str, Any]) -> tuple[Any, int]:
    """Run a script, and return its answer and the peak memory of all its processes in bytes.

    Args:
        python: Interpreter of the script's environment.
        script: Name of the script, without ``.py``.
        job: The JSON object that the script reads.

    Raises:
        RuntimeError: If the script fails or takes longer than an hour.
    """
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    # The script may write to its working directory. The path is short, because Ray creates sockets below it.
    with TemporaryDirectory(prefix="peer") as scratch, TemporaryFile() as errors:
        command = [python, script_path(script)]
        with subprocess.Popen(
            command,
            cwd=scratch,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        ) as process:
            try:
                with MemoryWatch(process.pid) as watch:
                    out, _ = process.communicate(json.dumps(job).encode(), _TIMEOUT_S)
            except subprocess.TimeoutExpired as error:
                raise RuntimeError(f"{script} took longer than {_TIMEOUT_S:.0f} s") from error
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # the script's own children may still be running
        if process.returncode or not out.strip():
            errors.seek(0)
            excerpt = errors.read().decode(errors="replace")[-_ERROR_EXCERPT:]
            raise RuntimeError(f"{script} failed with exit code {process.returncode}: {excerpt}")
        return json.loads(out.splitlines()[-1]), watch.peak_bytes
