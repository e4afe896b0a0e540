"""No command tells anybody on the network who uses it for what."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from batchcls.engine.manifest import Manifest
from tests.commandline import PATIENCE_S
from tests.conftest import ROOT

QUIETLY = """
import sys
def told(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        with open(sys.argv[-1], "a") as log:
            log.write(f"{event} {arguments[:2]}\\n")
        raise OSError("there is no network")
sys.addaudithook(told)
"""
COMMAND = "from batchcls.cli import main\nmain(sys.argv[1:-1], standalone_mode=False)\n"
REPORTS = "import nncf.telemetry; print(type(nncf.telemetry.telemetry).__name__)"


def run_offline(code: str, *arguments: str | Path, log: Path) -> "subprocess.CompletedProcess[str]":
    """Run ``code`` in a process that writes down whom it asks, as a user who has set nothing runs it."""
    unset = ("NNCF_CI", "NNCF_DEV", "CI", "PYTEST_CURRENT_TEST")
    environment = {key: value for key, value in os.environ.items() if key not in unset}
    home = log.parent / "home"
    home.mkdir()
    return subprocess.run(
        [sys.executable, "-c", QUIETLY + code, *map(str, arguments), log],
        cwd=ROOT,
        env=environment | {"HOME": str(home), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )


@pytest.fixture(scope="module")
def int8_build(
    small_onnx: Path, field_images: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple["subprocess.CompletedProcess[str]", Path]:
    """An int8 build's process, which goes on to tell who would be told of it; and its folder."""
    folder = tmp_path_factory.mktemp("process")
    process = run_offline(
        COMMAND + REPORTS,
        *("build", small_onnx, "--out", folder / "e", "--labels", "a,b,c", "--device", "cpu"),
        *("--precision", "int8", "--calibrate", field_images),
        log=folder / "log",
    )
    return process, folder


def test_quantization_does_not_report_its_use(
    int8_build: tuple["subprocess.CompletedProcess[str]", Path],
) -> None:
    reporter = int8_build[0].stdout.splitlines()[-1]

    assert reporter != "NNCFTelemetry"


def test_an_int8_build_says_nothing_but_what_it_assumes_and_its_result(
    int8_build: tuple["subprocess.CompletedProcess[str]", Path],
) -> None:
    process, folder = int8_build

    assert process.stdout.splitlines()[:-1] == [
        f"onnx int8 with 3 classes -> {folder / 'e'}",
        "never verified on images; build it again with --verify FOLDER --overwrite",
        f"next      batchcls run slides/ --engine {folder / 'e'} --out preds.parquet",
    ]
    assert [line[:9] for line in process.stderr.splitlines()] == ["input    "]


def test_no_build_asks_anybody_on_the_network(int8_build: tuple["subprocess.CompletedProcess[str]", Path]) -> None:
    _, folder = int8_build

    assert Manifest.read(folder / "e").precision == "int8"
    assert not (folder / "log").exists(), (folder / "log").read_text()


def test_no_run_asks_anybody_on_the_network(small_fp32: Path, field_images: Path, tmp_path: Path) -> None:
    run_offline(
        COMMAND,
        *("run", field_images, "--engine", small_fp32, "--out", tmp_path / "o.parquet", "--device", "cpu"),
        log=tmp_path / "log",
    )

    assert (tmp_path / "o.parquet").exists()
    assert not (tmp_path / "log").exists(), (tmp_path / "log").read_text()
