"""An engine answers alike on every CPU, or refuses: tried on one with AVX2 alone, which qemu-user is on any machine."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from batchcls import machine
from tests.commandline import after_loading, invoked, run_arguments
from tests.conftest import DATA, ROOT, draw

CASE = DATA.parent / "cases" / "int8-engine"
"""An int8 engine that is right where a CPU has VNNI, and overflows on AVX2 alone."""
VNNI = {"avx_vnni", "avx512_vnni", "amx_int8"}
EMULATED_S = 3000

pytestmark = pytest.mark.timeout(EMULATED_S)


def avx2() -> list[str]:
    """What starts Python on a CPU with AVX2 and neither AVX-512 nor VNNI: this one, or qemu's."""
    if VNNI.isdisjoint(machine.cpu_features()):
        return [sys.executable]
    if qemu := shutil.which("qemu-x86_64"):
        return [qemu, "-cpu", "max", sys.executable]
    pytest.skip("this CPU has VNNI, and qemu-x86_64 (Debian: qemu-user), which has AVX2 alone, is not installed")


def run_on_avx2(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    command = [*avx2(), "-m", "batchcls", *run_arguments(*arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=EMULATED_S, check=False)


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    for seed in range(4):
        draw(folder / f"{seed}.png", seed)
    return folder


@pytest.mark.skipif(not CASE.is_dir(), reason="../shared/cases is not there")
def test_an_int8_engine_that_overflows_is_refused(slides: Path, tmp_path: Path) -> None:
    process = run_on_avx2(slides, "--engine", CASE, "--out", tmp_path / "o.parquet")

    assert process.returncode == 1
    assert len(after_loading(process.stderr).splitlines()) == 1
    assert "answers the probes by openvino on cpu otherwise than verified: probabilities differ by up to 0.9" in (
        process.stderr
    )
    assert "--precision int8 --calibrate DIR" in process.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_run_names_int8_where_a_cpu_has_no_bfloat16(slides: Path, tiny_engine: Path, tmp_path: Path) -> None:
    here = invoked(slides, "--engine", tiny_engine, "--out", tmp_path / "here.parquet", "--precision", "fp32")
    there = run_on_avx2(slides, "--engine", tiny_engine, "--out", tmp_path / "avx2.parquet")

    assert (here.exit_code, there.returncode) == (0, 0), there.stderr
    assert "hint " not in here.stdout
    assert (
        there.stdout.count("hint      this CPU has no bfloat16, so it computed in float32; an int8 engine would") == 1
    )


@pytest.mark.parametrize("name", ["small_int8", "resnet_int8"])
def test_an_int8_engine_of_now_answers_alike_with_and_without_vnni(
    name: str, slides: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    engine = request.getfixturevalue(name)

    here = invoked(slides, "--engine", engine, "--out", tmp_path / "here.parquet")
    there = run_on_avx2(slides, "--engine", engine, "--out", tmp_path / "avx2.parquet")

    assert (here.exit_code, there.returncode) == (0, 0), there.stderr
    ours, theirs = (
        np.array(pq.read_table(tmp_path / f"{side}.parquet")["probabilities"].to_pylist()) for side in ("here", "avx2")
    )
    assert np.abs(ours - theirs).max() < 0.02
