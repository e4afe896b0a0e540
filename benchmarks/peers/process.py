"""One script of a peer, run as a process of its own."""

import json
import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

from benchmarks.peers.memory import Watch

_LONGEST_S = 3600.0
_SHOWN_ERROR = 2000


def script_path(name: str) -> Path:
    """The file of a script below `scripts`."""
    return Path(__file__).parent / "scripts" / f"{name}.py"


def run_script(python: Path, script: str, job: Mapping[str, Any]) -> tuple[Any, int]:
    """What a script below `scripts` answers to ``job``, and the peak memory of its processes in bytes."""
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    # where it may leave what it likes; the path is short, for Ray's sockets are below it
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
                with Watch(process.pid) as watch:
                    out, _ = process.communicate(json.dumps(job).encode(), _LONGEST_S)
            except subprocess.TimeoutExpired as error:
                raise RuntimeError(f"{script} took longer than {_LONGEST_S:.0f} s") from error
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # what it has started may be there still
        if process.returncode or not out.strip():
            errors.seek(0)
            said = errors.read().decode(errors="replace")[-_SHOWN_ERROR:]
            raise RuntimeError(f"{script} failed with exit code {process.returncode}: {said}")
        return json.loads(out.splitlines()[-1]), watch.peak_bytes
