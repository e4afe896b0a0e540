"""OpenVINO in a process that goes on after its engines are closed."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytest.importorskip("openvino", reason="OpenVINO is not installed")

SIGNAL_AFTER_ENGINES = """
import gc, os, signal
from pathlib import Path
from batchcls.engine.backends import open_engine
from batchcls.engine.manifest import Manifest

folder = Path("engines/all4-googlenet")
manifest = Manifest.read(folder)
engines = [open_engine(folder, manifest, backend="openvino", device="cpu", threads=1) for _ in range(2)]
while engines:
    engines.pop(0).close()
    gc.collect()
signal.signal(signal.SIGUSR1, lambda number, frame: print("heard"))
os.kill(os.getpid(), signal.SIGUSR1)
"""


def test_a_signal_is_heard_after_engines_were_closed_in_the_order_of_their_opening() -> None:
    process = subprocess.run(
        [sys.executable, "-c", SIGNAL_AFTER_ENGINES], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (process.returncode, process.stdout) == (0, "heard\n"), process.stderr
