"""TensorRT on a GPU: plans of another driver, and kernels that are compiled once."""

import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import pytest

from batchcls.engine.check import check_answers
from batchcls.engine.manifest import Manifest
from batchcls.engine.plan_sidecar import Sidecar
from tests.engines import opened_engine
from tests.gpu.conftest import Measured

pytestmark = pytest.mark.gpu


@pytest.fixture
def engine(gpu_engine: Path, tmp_path: Path) -> Path:
    """The committed engine with a plan for the first GPU, in a folder of the test's own."""
    return Path(shutil.copytree(gpu_engine, tmp_path / "engine"))


def start_s(engine: Path) -> float:
    """Seconds until the engine is open; its answers to the probes are checked."""
    since = perf_counter()
    with closing(opened_engine(engine, backend="tensorrt", device="cuda:0")) as opened:
        seconds = perf_counter() - since
        check_answers(opened, Manifest.read(engine))
    return seconds


def test_the_second_start_finds_the_kernels_of_the_first(engine: Path, measured: Measured) -> None:
    if not list(engine.glob("plans/*tensorrt_rtx.plan")):
        pytest.skip("TensorRT itself compiles nothing where a plan runs")
    (kernels,) = engine.glob("plans/*.kernels")  # by the check of the plan that was built
    kernels.unlink()
    first_s = start_s(engine)
    content = kernels.read_bytes()
    second_s = start_s(engine)
    measured("start of TensorRT for RTX without and with its kernels", f"{first_s:.1f} s and {second_s:.1f} s")
    assert kernels.read_bytes() == content

    kernels.write_bytes(content[:-1])
    start_s(engine)
    assert len(kernels.read_bytes()) >= len(content) - 1
    assert kernels.read_bytes() != content[:-1], "damaged kernels are replaced"


def test_a_plan_from_another_driver_runs_and_the_note_names_the_command_for_a_new_one(engine: Path) -> None:
    (path,) = engine.glob("plans/*.json")
    sidecar = Sidecar.read(path)
    replace(sidecar, target=replace(sidecar.target, driver="575.10")).write(path)
    with closing(opened_engine(engine, backend="tensorrt", device="cuda:0")) as opened:
        check_answers(opened, Manifest.read(engine))
        (note,) = opened.notes
    assert note.startswith("the plan was made under driver 575.10, here is ")
    assert note.endswith(f"run: batchcls build {engine} --device cuda:0")
