"""GPUs that are divided by MIG are devices of a run each; here a driver of our own tells of them."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from batchcls.records import METADATA_KEY
from tests.c_libraries import COMPILER, compile_library
from tests.commandline import PATIENCE_S, after_loading
from tests.conftest import ROOT, draw

FIRST, SECOND, WHOLE = "MIG-1a2b-first", "MIG-1c3d-second", "GPU-9f8e-whole"
DRIVER = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
// CUDA, which shows one device only, and writes down what it was asked to show.
int cuInit(unsigned flags) {
    FILE *log = fopen(getenv("FAKE_LOG"), "a");
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    fprintf(log, "%s\n", visible ? visible : "everything");
    return fclose(log);
}
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return index; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, "Card MIG 1g.5gb", size); return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = (size_t)5 << 30; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = attribute == 75 ? 9 : 0; return 0; }
int cuDeviceGetPCIBusId(char *text, int size, int device) { strncpy(text, "0000:3B:00.0", size); return 0; }
// NVML: GPU 0 is divided in two and has room for more, GPU 1 is whole. Handles: 10 and 11; instances: 20 and 22.
int nvmlInit_v2(void) { return 0; }
int nvmlSystemGetDriverVersion(char *text, unsigned size) { strncpy(text, "580.95.05", size); return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **gpu) { *gpu = (void *)(10L + index); return 0; }
int nvmlDeviceGetMigMode(void *gpu, unsigned *now, unsigned *next) {
    if (gpu != (void *)10) return 3;
    *now = *next = !getenv("FAKE_UNDIVIDED");
    return 0;
}
int nvmlDeviceGetMaxMigDeviceCount(void *gpu, unsigned *count) { *count = 7; return gpu != (void *)10; }
int nvmlDeviceGetMigDeviceHandleByIndex(void *gpu, unsigned index, void **instance) {
    if (gpu != (void *)10 || (index != 0 && index != 2)) return 6;
    *instance = (void *)(20L + index);
    return 0;
}
int nvmlDeviceGetUUID(void *device, char *text, unsigned size) {
    const char *names[] = {[10] = "GPU-0000-divided", [11] = "WHOLE", [20] = "FIRST", [22] = "SECOND"};
    strncpy(text, names[(long)device], size);
    return 0;
}
int nvmlDeviceGetPciInfo_v3(void *gpu, unsigned *info) {
    memset(info, 0, 68);
    info[5] = gpu == (void *)10 ? 0x3b : 0xaf;  // the bus, behind a text of 16 bytes and the domain
    return 0;
}
"""
DEVICES = """if True:
    import json, os, sys
    from dataclasses import astuple
    from batchcls.errors import EngineError
    from batchcls.inference.devices import run_devices

    def answer(device, visible):
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        if visible is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = visible
        try:
            return list(map(astuple, run_devices(device)))
        except EngineError as error:
            return str(error)

    print(json.dumps([answer(*case) for case in json.loads(sys.argv[1])]))
"""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of drivers."""
    if COMPILER is None:
        pytest.skip("no C compiler here")
    folder = tmp_path_factory.mktemp("driver")
    source = DRIVER
    for name, uuid in (("WHOLE", WHOLE), ("FIRST", FIRST), ("SECOND", SECOND)):
        source = source.replace(f'"{name}"', f'"{uuid}"')
    for library in ("libcuda.so.1", "libnvidia-ml.so.1"):
        compile_library(source, folder / library)
    return folder


@pytest.fixture
def run_there(drivers: Path, tmp_path: Path) -> Run:
    """Runs Python where the driver tells of a divided GPU and a whole one."""

    def run(*arguments: str | Path, **variables: str) -> "subprocess.CompletedProcess[str]":
        inherited = {key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"}
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=ROOT,
            env=inherited | {"LD_LIBRARY_PATH": str(drivers), "FAKE_LOG": str(tmp_path / "shown")} | variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )

    return run


def test_each_instance_and_each_whole_gpu_is_a_device_unless_the_user_chose(run_there: Run) -> None:
    near, far = "0000:3b:00.0", "0000:af:00.0"
    first, second, whole = ["cuda:0", near, FIRST], ["cuda:1", near, SECOND], ["cuda:2", far, WHOLE]
    as_cuda_shows_it = ["cuda:0", near, None]
    cases = {
        ("all", None): [first, second, whole],
        ("auto", None): [first],
        ("cuda", None): [first],
        ("cuda:1", None): [second],
        ("cpu", None): [["cpu", None, None]],
        ("cuda:3", None): "device 'cuda:3' was asked for, this machine shows 3 GPUs; run: batchcls info, or choose "
        "--device cpu",
        ("all", f"{WHOLE}, MIG-1c"): [["cuda:0", far, WHOLE], ["cuda:1", near, SECOND]],
        ("all", f"{SECOND},MIG-none,{FIRST}"): [as_cuda_shows_it],
        ("all", f"{SECOND},MIG-1,{FIRST}"): [as_cuda_shows_it],
        ("all", SECOND): [as_cuda_shows_it],
        ("all", "0,1"): [as_cuda_shows_it],
    }

    done = run_there("-c", DEVICES, json.dumps(list(cases)))

    assert dict(zip(cases, json.loads(done.stdout), strict=True)) == cases


def test_info_tells_which_instance_a_device_is(run_there: Run) -> None:
    told = json.loads(run_there("-m", "batchcls", "info", "--json").stdout)["machine"]
    without = json.loads(run_there("-m", "batchcls", "info", "--json", FAKE_UNDIVIDED="1").stdout)["machine"]

    assert told["devices_of_a_run"] == [f"cuda:0 {FIRST}", f"cuda:1 {SECOND}", f"cuda:2 {WHOLE}"]
    assert "devices_of_a_run" not in without


def test_gpus_that_are_not_divided_are_left_to_cuda(run_there: Run) -> None:
    done = run_there("-c", DEVICES, json.dumps([("all", None)]), FAKE_UNDIVIDED="1")

    assert json.loads(done.stdout) == [[["cuda:0", "0000:3b:00.0", None]]]


def test_all_instances_share_a_run(run_there: Run, tiny_engine: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.parquet"
    for seed in range(12):
        draw(tmp_path / "slides" / f"{seed}.png", seed)

    done = run_there(
        *("-m", "batchcls", "run", tmp_path / "slides", "--engine", tiny_engine, "--out", out, "--device", "all"),
        *("--backend", "null", "--decoder", "pillow", "--processes", "1"),
    )

    assert done.returncode == 0, done.stderr
    record = json.loads(pq.read_metadata(out).metadata[METADATA_KEY])
    assert (record["device"], record["counts"]["rows"]) == ("cuda:0,cuda:1,cuda:2", 12)


def test_cuda_shows_a_process_its_own_instance(run_there: Run, tiny_engine: Path, tmp_path: Path) -> None:
    pytest.importorskip("cuda.bindings", reason="cuda-bindings are not installed")
    slide = draw(tmp_path / "0.png")

    done = run_there(
        *("-m", "batchcls", "run", slide, "--engine", tiny_engine, "--out", tmp_path / "o.parquet"),
        *("--device", "cuda:1", "--backend", "tensorrt", "--decoder", "pillow", "--processes", "2"),
    )

    assert re.match(r"batchcls: the process for cuda:1 \([12] of 2\): ", after_loading(done.stderr))
    assert set((tmp_path / "shown").read_text().split()) == {SECOND}
