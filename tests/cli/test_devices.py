"""Commands choose and refuse devices by what the driver says; here a library of our own says it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from rich.console import Console

from batchcls.building.gpu_plans import build_plans_for
from batchcls.building.tensorrt_plan import PlanOptions
from tests.c_libraries import COMPILER, compile_library
from tests.commandline import PATIENCE_S, after_loading
from tests.conftest import ROOT, draw

HAS_RTX = find_spec("tensorrt_rtx") is not None

needs_rtx = pytest.mark.skipif(not HAS_RTX, reason="TensorRT for RTX is not installed")


DRIVER = """
#include <stdlib.h>
#include <string.h>
#define HANDLE 40
static int number(const char *name) { return atoi(getenv(name)); }
int cuInit(unsigned flags) { return number("FAKE_INIT"); }
int cuDeviceGetCount(int *count) { *count = number("FAKE_GPUS"); return 0; }
int cuDriverGetVersion(int *version) { *version = number("FAKE_CUDA"); return 0; }
int cuDeviceGet(int *device, int index) { *device = index + HANDLE; return 0; }
int cuDeviceGetName(char *name, int size, int device) {
    strncpy(name, "Card", size);
    name[4] = '0' + device - HANDLE;
    return 0;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = (size_t)24 << 30; return device < HANDLE; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    if (device < HANDLE || (attribute != 75 && attribute != 76)) return 1;
    *value = attribute == 75 ? number("FAKE_SM") / 10 : number("FAKE_SM") % 10;
    return 0;
}
int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 0; return 0; }
int cuDeviceGetPCIBusId(char *text, int size, int device) { return 1; }
int nvmlSystemGetDriverVersion(char *text, unsigned size) { strncpy(text, "580.95.05", size); return 0; }
"""

RunElsewhere = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def run_elsewhere(tmp_path_factory: pytest.TempPathFactory) -> RunElsewhere:
    """Runs `batchcls` where the driver shows GPUs that are not here; ``code`` runs first."""
    if COMPILER is None:
        pytest.skip("no C compiler here")
    folder = tmp_path_factory.mktemp("driver")
    for library in ("libcuda.so.1", "libnvidia-ml.so.1"):
        compile_library(DRIVER, folder / library)

    def run(
        *arguments: str | Path, gpus: int = 1, sm: int = 86, cuda: int = 13_000, init: int = 0, code: str = ""
    ) -> "subprocess.CompletedProcess[str]":
        variables = {"FAKE_GPUS": gpus, "FAKE_SM": sm, "FAKE_CUDA": cuda, "FAKE_INIT": init}
        start = f"import sys; sys.modules['tensorrt'] = None\n{code}\nfrom batchcls.cli import main\nmain()"
        return subprocess.run(
            [sys.executable, "-c", start, *map(str, arguments)],
            cwd=ROOT,
            env=os.environ | {key: str(value) for key, value in variables.items()} | {"LD_LIBRARY_PATH": str(folder)},
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )

    return run


RESOLVE = "import sys; from batchcls.machine import resolve_devices; print(*resolve_devices('{}')); sys.exit()"


@pytest.mark.parametrize(
    ("device", "gpus", "devices"),
    [
        ("auto", 0, "cpu"),
        ("cpu", 2, "cpu"),
        ("auto", 2, "cuda:0"),
        ("cuda", 2, "cuda:0"),
        ("cuda:1", 2, "cuda:1"),
        ("all", 1, "cuda:0"),
        ("all", 3, "cuda:0 cuda:1 cuda:2"),
    ],
)
def test_devices_are_those_that_are_asked_for(
    run_elsewhere: RunElsewhere, device: str, gpus: int, devices: str
) -> None:
    assert run_elsewhere(gpus=gpus, code=RESOLVE.format(device)).stdout.strip() == devices


@pytest.mark.parametrize(
    ("device", "machine", "message"),
    [
        ("cuda", {"gpus": 0}, "device 'cuda' was asked for, the NVIDIA driver shows no GPU; run: batchcls info"),
        ("all", {"gpus": 0}, "device 'all' was asked for, the NVIDIA driver shows no GPU; run: batchcls info"),
        ("cuda:0", {"init": 100}, "device 'cuda:0' was asked for, the NVIDIA driver shows no GPU; run: batchcls info"),
        ("cuda:2", {"gpus": 2}, "device 'cuda:2' was asked for, this machine shows 2 GPUs; run: batchcls info"),
        (
            "auto",
            {"cuda": 12_080},
            "its driver 580.95.05 runs CUDA 12.8, and DALI's wheel needs CUDA 13; update the driver",
        ),
        ("all", {"cuda": 12_090}, "runs CUDA 12.9, and DALI's wheel needs CUDA 13; update the driver"),
    ],
)
def test_a_device_that_cannot_be_had_is_never_replaced_by_another(
    run_elsewhere: RunElsewhere, device: str, machine: dict[str, int], message: str, tiny_engine: Path, tmp_path: Path
) -> None:
    slide = draw(tmp_path / "0.jpg")

    process = run_elsewhere(
        "run", slide, "--engine", tiny_engine, "--out", tmp_path / "o.parquet", "--device", device, **machine
    )

    assert process.returncode == 1
    assert len(process.stderr.splitlines()) == 1, process.stderr
    assert message in process.stderr
    assert not (tmp_path / "o.parquet").exists()


@pytest.mark.parametrize(
    ("machine", "missing"),
    [
        ({"gpus": 0}, "the driver shows no GPU: run nvidia-smi"),
        ({"cuda": 12_080}, "the driver runs CUDA 12.8, DALI needs 13: update it from nvidia.com/drivers"),
    ],
)
def test_what_is_missing_for_gpus_is_said_with_what_brings_it(
    run_elsewhere: RunElsewhere, machine: dict[str, int], missing: str
) -> None:
    facts = json.loads(run_elsewhere("info", "--json", **machine).stdout)["machine"]

    assert missing in facts["missing_for_gpus"]
    assert missing not in json.loads(run_elsewhere("info", "--json", cuda=14_010).stdout)["machine"]["missing_for_gpus"]


def test_gpus_are_described_as_the_driver_tells_of_them(run_elsewhere: RunElsewhere) -> None:
    facts = json.loads(run_elsewhere("info", "--json", gpus=2, sm=120).stdout)["machine"]

    assert (facts["cuda"], facts["driver"]) == ("13.0", "580.95.05")
    assert facts["gpus"] == [
        {"number": number, "name": f"Card{number}", "sm": "sm120", "memory_bytes": 24 << 30} for number in (0, 1)
    ]


@needs_rtx
def test_tensorrt_for_rtx_refuses_a_card_that_it_does_not_know(run_elsewhere: RunElsewhere, tiny_engine: Path) -> None:
    process = run_elsewhere("build", tiny_engine, sm=90)

    assert process.returncode == 1
    assert len(process.stderr.splitlines()) == 1, process.stderr
    assert "tensorrt_rtx makes plans for sm75, " in process.stderr
    assert "not for sm90; run: pip install 'tensorrt>=10.12'" in process.stderr


@needs_rtx
@pytest.mark.parametrize(
    ("sm", "code", "note"),
    [
        (90, "", "tensorrt_rtx makes plans for sm75, "),
        (86, "import sys; sys.modules['tensorrt_rtx'] = None", "pip install 'tensorrt"),
    ],
    ids=["another card", "no TensorRT"],
)
def test_where_no_plan_was_asked_for_and_none_can_be_made_the_engine_is_built_with_a_note(
    run_elsewhere: RunElsewhere, tiny_onnx: Path, tmp_path: Path, sm: int, code: str, note: str
) -> None:
    process = run_elsewhere("build", tiny_onnx, "--out", tmp_path / "e", "--labels", "a,b,c", sm=sm, code=code)

    assert sorted(path.name for path in (tmp_path / "e").iterdir()) == ["engine.json", "model.onnx"]
    assert process.returncode == 0, process.stderr
    assumed, unplanned = process.stderr.splitlines()
    assert assumed.startswith("input     32x32, stretched")
    assert unplanned.startswith("no plan for the GPU was made: ")
    assert note in unplanned


def test_without_any_tensorrt_the_commands_that_bring_one_are_named(
    run_elsewhere: RunElsewhere, tiny_engine: Path
) -> None:
    process = run_elsewhere("build", tiny_engine, code="import sys; sys.modules['tensorrt_rtx'] = None")

    assert process.returncode == 1
    assert process.stderr.startswith("batchcls: no TensorRT is installed; run: pip install 'tensorrt>=10.12'")
    assert len(process.stderr.splitlines()) == 1


@needs_rtx
@pytest.mark.parametrize("number", [0, 1])
def test_a_gpu_without_a_plan_for_it_is_an_error_before_any_plan_is_opened(
    number: int, run_elsewhere: RunElsewhere, tiny_engine: Path, tmp_path: Path
) -> None:
    engine = shutil.copytree(tiny_engine, tmp_path / "e")
    build_plans_for(engine, ["sm120"], PlanOptions(), Console(quiet=True))
    slide = draw(tmp_path / "0.jpg")

    arguments = ("run", slide, "--engine", engine, "--out", tmp_path / "o.parquet", "--device", f"cuda:{number}")
    process = run_elsewhere(*arguments, gpus=2)

    assert process.returncode == 1
    assert after_loading(process.stderr) == (
        f"batchcls: engine {str(engine)!r} has no plan for this Card{number} (sm86); it has sm120-any-tensorrt_rtx "
        f"(sm sm120 here sm86); run: batchcls build {engine} --device cuda:{number}\n"
    )


@needs_rtx
def test_a_plan_that_fits_is_taken_as_far_as_the_driver_carries_it(
    run_elsewhere: RunElsewhere, tiny_engine: Path, tmp_path: Path
) -> None:
    engine = shutil.copytree(tiny_engine, tmp_path / "e")
    build_plans_for(engine, ["sm86"], PlanOptions(), Console(quiet=True))
    slide = draw(tmp_path / "0.jpg")

    process = run_elsewhere("run", slide, "--engine", engine, "--out", tmp_path / "o.parquet")

    assert process.returncode == 1
    said = after_loading(process.stderr)
    assert said.startswith("batchcls: CUDA failed: ")
    assert len(said.splitlines()) == 1, process.stderr
    assert not (tmp_path / "o.parquet").exists()
