"""The command line as a process of its own, and within this one."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pyarrow.ipc
from click.testing import CliRunner, Result

from batchcls.cli import main

PATIENCE_S = 600.0
"""What nothing takes on however busy a machine, unless it hangs."""


def after_loading(stderr: str) -> str:
    """What a run said after its first line, which says what it loads; without the progress that slow machines show."""
    first, end, rest = stderr.partition(" ...\n")
    assert first.startswith("loading engine "), stderr
    return without_progress(rest if end else stderr)


def without_progress(said: str) -> str:
    """What a run said, without the lines that it shows of its progress every few seconds."""
    return re.sub(r"^[\d,]+(?: of [\d,]+)? files, [\d,]+ images/s.*\n", "", said, flags=re.MULTILINE)


def after_answer(stderr: str) -> str:
    """What a command said after its answer to a signal, which it gives where its end takes a while."""
    return stderr.removeprefix("stopping after this step; files are written whole or not at all\n")


def run_arguments(*arguments: str | Path) -> list[str]:
    """Of `batchcls run`, on the CPU unless they say otherwise: a GPU here or there must not matter."""
    return ["run", "--device", "cpu", *map(str, arguments)]


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "batchcls", *run_arguments(*arguments)]


STOPPING = """
import os, signal, sys
from importlib import import_module
from batchcls.storage.resumable_output import ResumableOutput

run = import_module("batchcls.inference.run")
classify_all, append = run._classify_all, ResumableOutput.append

def stop_before(*arguments):
    os.kill(os.getpid(), signal.SIGSTOP)
    classify_all(*arguments)

def stop_after(*arguments):
    append(*arguments)
    os.kill(os.getpid(), signal.SIGSTOP)

if sys.argv[1] == "begun":
    run._classify_all = stop_before
else:
    ResumableOutput.append = stop_after
from batchcls.cli import main
main(sys.argv[2:], "batchcls")
"""


def stopping_command(*arguments: str | Path, at: Literal["begun", "part"] = "begun") -> list[str]:
    """`command`, of a run that stops itself, and goes on after SIGCONT.

    Args:
        at: ``begun``: once it has begun its output, before it reads a file; ``part``: after each part of the output.
    """
    return [sys.executable, "-c", STOPPING, at, *run_arguments(*arguments)]


def finished(*arguments: str | Path, **options: Any) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=PATIENCE_S, check=False, **options
    )


def invoked(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, run_arguments(*arguments))


def links(folder: Path, count: int, sources: list[Path]) -> Path:
    """A folder of so many files, which share the content of a few."""
    folder.mkdir()
    for number in range(count):
        os.link(sources[number % len(sources)], folder / f"{number:06d}{sources[0].suffix}")
    return folder


def wait_for(path: Path, process: "subprocess.Popen[str]") -> None:
    """Return once a running process has made ``path``."""
    until = time.monotonic() + PATIENCE_S
    while not path.exists():
        assert process.poll() is None, f"the run ended too early, with {process.returncode}"
        assert time.monotonic() < until
        time.sleep(0.005)


def partial(out: Path) -> Path:
    return out.with_name(out.name + ".partial")


def rows_on_disk(out: Path) -> int:
    """How many rows an unfinished run has brought to the disk."""
    parts = sorted(partial(out).glob("part-*.arrow"))
    return sum(len(pyarrow.ipc.open_file(part.read_bytes()).read_all()) for part in parts)


def wait_until_stopped(process: "subprocess.Popen[Any]") -> None:
    """Return once a process of `stopping_command` has stopped."""
    until = time.monotonic() + PATIENCE_S
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        assert process.poll() is None, f"the run ended too early, with {process.returncode}"
        assert time.monotonic() < until
        time.sleep(0.005)


@contextmanager
def paused(process: "subprocess.Popen[Any]") -> Iterator[None]:
    """While a process of `stopping_command` stands still."""
    wait_until_stopped(process)
    yield
    process.send_signal(signal.SIGCONT)
