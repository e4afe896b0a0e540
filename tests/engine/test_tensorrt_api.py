"""The code that calls TensorRT and CUDA, held to their own signatures where there is no GPU to call them on."""

import ast
import inspect
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from batchcls import machine
from batchcls.building.plans import build_plans_for
from batchcls.building.tensorrt_plan import PlanOptions
from batchcls.engine.backends import open_engine
from batchcls.engine.backends.tensorrt_api import errors_of, log
from batchcls.errors import EngineError
from tests.commandline import PATIENCE_S
from tests.conftest import ROOT, draw

COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
HAS_RTX = find_spec("tensorrt_rtx") is not None

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C compiler here")
needs_rtx = pytest.mark.skipif(not HAS_RTX, reason="TensorRT for RTX is not installed")
needs_no_gpu = pytest.mark.skipif(bool(machine.gpus()), reason="it is about machines without a GPU")


def compiled(source: str, path: Path) -> None:
    """A shared library that the dynamic loader knows by ``path``'s name."""
    assert COMPILER is not None
    code = path.with_suffix(".c")
    code.write_text(source)
    subprocess.run(
        [COMPILER, "-shared", "-fPIC", "-o", path, code, f"-Wl,-soname,{path.name}"], check=True, timeout=PATIENCE_S
    )


# The signatures that TensorRT's own bindings know, as stubs, against which mypy checks what we call.

LIBRARIES = ("libnvinfer.so.11", "libnvonnxparser.so.11", "libnvinfer_plugin.so.11")
SYMBOLS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "getNvOnnxParserVersion",
    "getBuilderPluginRegistry",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)
"""What the bindings of TensorRT want of its libraries to be loaded; nothing of it is called."""
STUBGEN = "import sys; from mypy.stubgen import main; main(sys.argv[1:])"
CORRECTIONS = {
    # The module has a data type of this name, which would hide the type that signatures mean.
    r"^bool: DataType\n": "",
    # A parameter without default stands behind some that have one.
    r"channel_axis: typing.SupportsInt\) -> IScaleLayer": "channel_axis: typing.SupportsInt = ...) -> IScaleLayer",
    # Protocols that the bindings keep and cannot write down: shapes are sequences, memory is a buffer.
    r"(def set_shape\(self, input: str, )min: Dims, opt: Dims, max: Dims": (
        r"\1min: collections.abc.Sequence[int], opt: collections.abc.Sequence[int], max: collections.abc.Sequence[int]"
    ),
    r"^    shape: Dims\n": (
        "    @property\n    def shape(self) -> Dims: ...\n"
        "    @shape.setter\n    def shape(self, shape: collections.abc.Sequence[int]) -> None: ...\n"
    ),
    r"^class Dims:\n": "class Dims:\n    def __iter__(self) -> collections.abc.Iterator[int]: ...\n",
    r"^class IHostMemory:\n": "class IHostMemory:\n    def __buffer__(self, flags: int, /) -> memoryview: ...\n",
    # What TensorRT hands to a monitor is an int, as is said of what it takes.
    r"(def (?:phase_start|step_complete)\(.*)typing\.SupportsInt": r"\1int",
    # Written twice, once without its types.
    r"def get_error\(self, \*args, \*\*kwargs\): \.\.\.": (
        "def get_error(self, index: typing.SupportsInt) -> ParserError: ..."
    ),
}
MYPY_INI = """
[mypy]
strict = true
warn_unused_ignores = false
ignore_missing_imports = true
follow_imports = silent
[mypy-tensorrt.*,tensorrt_rtx.*]
ignore_errors = true
"""
CALLERS = ("plan.py", "tensorrt_api.py", "backends/tensorrt.py")
APIS = ("tensorrt", "tensorrt_rtx")


@dataclass(frozen=True)
class Mistake:
    """One that somebody could make in ``file``; ``apis`` are those in which it is one."""

    file: str
    right: str
    wrong: str
    apis: tuple[str, ...] = APIS


MISTAKES = [
    Mistake("plan.py", "NetworkDefinitionCreationFlag.STRONGLY_TYPED", "NetworkDefinitionCreationFlag.STRONG_TYPES"),
    Mistake("plan.py", "trt.NetworkDefinitionCreationFlag", "trt.NetworkCreationFlag"),
    Mistake("plan.py", "builder.create_builder_config()", "builder.create_builder_config(0)"),
    Mistake("plan.py", "builder.create_optimization_profile()", "builder.create_optimisation_profile()"),
    Mistake("plan.py", "trt.OnnxParser(network, log(target.module))", "trt.OnnxParser(network)"),
    Mistake("plan.py", "parser.num_errors", "parser.errors"),
    Mistake("plan.py", ".desc()", ".description()"),
    Mistake("plan.py", "config.progress_monitor =", "config.monitor ="),
    Mistake("plan.py", "network.get_input(0)", "network.get_input()"),
    Mistake("plan.py", "profile.set_shape(pixels.name, shape, shape, shape)", "profile.set_shape(pixels.name, shape)"),
    Mistake("plan.py", "list(pixels.shape)", "list(pixels.dims)"),
    Mistake("plan.py", "pixels.shape =", "pixels.dims ="),
    Mistake("plan.py", "config.add_optimization_profile(profile)", "config.add_profile(profile)"),
    Mistake("plan.py", "config.builder_optimization_level =", "config.optimization_level ="),
    Mistake("plan.py", "MemoryPoolType.WORKSPACE", "MemoryPoolType.SCRATCH"),
    Mistake("plan.py", "trt.MemoryPoolType.WORKSPACE, options.workspace_bytes", "options.workspace_bytes"),
    Mistake("plan.py", "build_serialized_network(network, config)", "build_serialized_network(network)"),
    Mistake("plan.py", "build_serialized_network(", "build_engine("),
    Mistake("plan.py", "config.create_timing_cache(before)", "config.create_timing_cache()"),
    Mistake("plan.py", "config.set_timing_cache(timings, False)", "config.set_timing_cache(timings)"),
    Mistake("plan.py", "config.get_timing_cache()", "config.timing_cache()"),
    Mistake("plan.py", "after.serialize()", "after.serialise()"),
    Mistake("plan.py", "trt.IProgressMonitor", "trt.ProgressMonitor"),
    Mistake("plan.py", "def step_complete(self, phase_name: str, step: int)", "def step_complete(self, step: int)"),
    Mistake("plan.py", "config.num_compute_capabilities =", "config.compute_capabilities =", ("tensorrt_rtx",)),
    Mistake("plan.py", "config.set_compute_capability(", "config.add_compute_capability(", ("tensorrt_rtx",)),
    Mistake("plan.py", "REQUIRE_USER_ALLOCATION", "USER_ALLOCATION", ("tensorrt_rtx",)),
    Mistake("plan.py", "config.set_flag(", "config.add_flag(", ("tensorrt_rtx",)),
    Mistake("plan.py", "rtx.ComputeCapability", "rtx.ComputeCapabilities", ("tensorrt_rtx",)),
    Mistake("plan.py", "[target.sm.upper()], 0)", "[target.sm.upper()])", ("tensorrt_rtx",)),
    Mistake("tensorrt_api.py", "Severity.WARNING", "Severity.WARN"),
    Mistake("tensorrt_api.py", "Severity.INTERNAL_ERROR", "Severity.INTERNAL"),
    Mistake("tensorrt_api.py", "def log(self, severity: Any, msg: str)", "def log(self, msg: str)"),
    Mistake("tensorrt_api.py", "(trt.ILogger)", "(trt.ILog)"),
    Mistake("tensorrt_api.py", "trt.ComputeCapability", "trt.Capability", ("tensorrt_rtx",)),
    Mistake("backends/tensorrt.py", "trt.Runtime(log(module))", "trt.Runtime()"),
    Mistake("backends/tensorrt.py", "runtime.deserialize_cuda_engine(plan)", "runtime.deserialize(plan)"),
    Mistake("backends/tensorrt.py", "engine.create_execution_context()", "engine.create_context()"),
    Mistake("backends/tensorrt.py", "engine.num_io_tensors", "engine.num_bindings"),
    Mistake("backends/tensorrt.py", "engine.get_tensor_name(number)", "engine.get_tensor_name()"),
    Mistake("backends/tensorrt.py", "engine.get_tensor_shape(name)", "engine.get_binding_shape(name)"),
    Mistake("backends/tensorrt.py", 'set_tensor_address("logits", self._logits.address)', "set_tensor_address(8)"),
    Mistake("backends/tensorrt.py", "execute_async_v3(", "execute_async_v2("),
    Mistake("backends/tensorrt.py", "execute_async_v3(int(self._stream.handle))", "execute_async_v3()"),
]


def stub(module: str, folder: Path) -> str:
    """What the bindings ``tensorrt_bindings.tensorrt`` or ``tensorrt_rtx_bindings.tensorrt_rtx`` tell of themselves."""
    if module == "tensorrt":
        for library in LIBRARIES:
            compiled("".join(f"void *{symbol}(void) {{ return 0; }}\n" for symbol in SYMBOLS), folder / library)
        libraries = [str(folder)]
    else:
        found = find_spec("tensorrt_rtx_libs")
        libraries = list(found.submodule_search_locations or ()) if found else []
    subprocess.run(
        [sys.executable, "-c", STUBGEN, "--inspect-mode", "-m", f"{module}_bindings.{module}", "-o", folder / "out"],
        env=os.environ | {"LD_LIBRARY_PATH": ":".join(libraries)},
        check=True,
        capture_output=True,
        timeout=PATIENCE_S,
    )
    text = (folder / "out" / f"{module}_bindings" / f"{module}.pyi").read_text()
    for pattern, correct in CORRECTIONS.items():
        text, count = re.subn(pattern, correct, text, flags=re.MULTILINE)
        assert count, f"{module} has no {pattern} any more"
    return text


def typed(source: str) -> str:
    """``source`` with imports that mypy follows in the place of those that are made when it runs."""

    def imported(found: re.Match[str]) -> str:
        module = "tensorrt_rtx" if found[3] == '"tensorrt_rtx"' else "tensorrt"
        return f"{found[1]}import {module} as {found[2]}"

    text, count = re.subn(r"^( +)(trt|rtx) = api\((.+)\)$", imported, source, flags=re.MULTILINE)
    assert count
    text = text.replace("# type: ignore[name-defined,misc]", "#")  # needed only where the module is not known
    assert not re.search(r"\b(?:trt|rtx)\b.*= api\(", text)
    return text


def replaced(source: str, right: str, wrong: str) -> str:
    assert right in source
    return source.replace(right, wrong)


@pytest.fixture(scope="module", params=APIS)
def verdict(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, str]]:
    """One of the APIs, and mypy's errors about our code against it, by file; mistakes are files of their own."""
    module: str = request.param
    if COMPILER is None:
        pytest.skip("no C compiler here")
    if not find_spec(f"{module}_bindings"):
        pytest.skip(f"the bindings of {module} are not installed")
    folder = tmp_path_factory.mktemp(module)
    (folder / "stubs" / module).mkdir(parents=True)
    (folder / "stubs" / module / "__init__.pyi").write_text(stub(module, folder))
    if module == "tensorrt_rtx":  # it takes the place of the other, as it does when it runs
        (folder / "stubs" / "tensorrt").mkdir()
        (folder / "stubs" / "tensorrt" / "__init__.pyi").write_text("from tensorrt_rtx import *\n")
    package = folder / "source" / "batchcls"
    shutil.copytree(ROOT / "batchcls", package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in CALLERS:
        (package / name).write_text(typed((package / name).read_text()))
    for number, mistake in enumerate(MISTAKES):
        wrong = replaced((package / mistake.file).read_text(), mistake.right, mistake.wrong)
        (package / f"mistake_{number}.py").write_text(wrong)
    (folder / "mypy.ini").write_text(MYPY_INI)
    modules = [name.removesuffix(".py").replace("/", ".") for name in CALLERS]
    modules += [f"mistake_{number}" for number in range(len(MISTAKES))]
    process = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", folder / "mypy.ini", "--cache-dir", folder / "cache"]
        + [argument for name in modules for argument in ("-m", f"batchcls.{name}")],
        cwd=folder / "source",
        env=os.environ | {"MYPYPATH": f"{folder / 'stubs'}:{folder / 'source'}"},
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_S,
        check=False,
    )
    assert f"(checked {len(modules)} source files)" in process.stdout, process.stdout + process.stderr
    errors: dict[str, str] = {}
    for line in process.stdout.splitlines():
        if found := re.match(r"batchcls/(\S+?\.py):\d+: error: ", line):
            errors[found[1]] = errors.get(found[1], "") + line + "\n"
    return module, errors


@pytest.mark.parametrize("name", CALLERS)
def test_every_call_of_tensorrt_is_one_that_its_bindings_know(verdict: tuple[str, dict[str, str]], name: str) -> None:
    assert verdict[1].get(name, "") == ""


@pytest.mark.parametrize("number", range(len(MISTAKES)), ids=[mistake.wrong for mistake in MISTAKES])
def test_a_call_that_tensorrt_does_not_know_would_be_seen(verdict: tuple[str, dict[str, str]], number: int) -> None:
    module, errors = verdict

    assert bool(errors.get(f"mistake_{number}.py")) == (module in MISTAKES[number].apis)


# CUDA's Python bindings can be imported everywhere, and tell their signatures by themselves.


def calls_that_do_not_fit(source: str) -> list[str]:
    """What of `cuda.bindings.runtime` is named in ``source`` and not there, or called otherwise than it can be."""
    from cuda.bindings import runtime

    wrong = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and re.fullmatch(r"runtime(\.\w+)+", ast.unparse(node)):
            found: Any = runtime
            for name in ast.unparse(node).split(".")[1:]:
                found = getattr(found, name, None)
            if found is None:
                wrong.append(ast.unparse(node))
        if isinstance(node, ast.Call) and re.fullmatch(r"runtime\.\w+", ast.unparse(node.func)):
            function = getattr(runtime, ast.unparse(node.func).removeprefix("runtime."), None)
            try:
                inspect.signature(function).bind(*node.args, **{word.arg: word.value for word in node.keywords})
            except TypeError as error:
                wrong.append(f"{ast.unparse(node)}: {error}")
    return wrong


def test_every_call_of_cuda_is_one_that_its_bindings_know() -> None:
    pytest.importorskip("cuda.bindings")
    source = (ROOT / "batchcls" / "cuda.py").read_text()

    assert source.count("runtime.cuda") > 15
    assert calls_that_do_not_fit(source) == []


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("runtime.cudaSetDevice(number)", "runtime.cudaSetDevice()"),
        ("runtime.cudaFreeHost(", "runtime.cudaFreePinned("),
        ("runtime.cudaGraphInstantiate(recorded, 0)", "runtime.cudaGraphInstantiate(recorded)"),
        ("runtime.cudaMemcpyKind.cudaMemcpyDefault", "runtime.cudaMemcpyKind.cudaMemcpyAny"),
        (", self.handle))", "))"),
        ("runtime.cudaStreamNonBlocking", "runtime.cudaStreamAsync"),
    ],
)
def test_a_call_that_cuda_does_not_know_would_be_seen(right: str, wrong: str) -> None:
    pytest.importorskip("cuda.bindings")

    assert calls_that_do_not_fit(replaced((ROOT / "batchcls" / "cuda.py").read_text(), right, wrong)) != []


@needs_no_gpu
def test_without_a_gpu_cuda_says_why_it_cannot_work() -> None:
    pytest.importorskip("cuda.bindings")
    from batchcls.engine.backends import cuda

    with pytest.raises(EngineError, match=r"^CUDA failed: .* \(cudaError\w+\); run: batchcls info$"):
        cuda.use(0)


# What TensorRT says goes to Python's logging, and its errors to who asks.


@needs_rtx
def test_what_tensorrt_refuses_is_logged_and_collected(caplog: pytest.LogCaptureFixture) -> None:
    import tensorrt_rtx as trt

    with errors_of("tensorrt_rtx") as errors:
        network = trt.Builder(log("tensorrt_rtx")).create_network(0)
        assert not trt.OnnxParser(network, log("tensorrt_rtx")).parse(b"no network")
        collected = list(errors)

    logged = [record for record in caplog.records if record.name == "batchcls.tensorrt"]
    assert any("Failed to parse the ONNX model" in error for error in collected)
    assert all("\n" not in error for error in collected)
    assert any(record.levelno == logging.ERROR and "Failed to parse" in record.getMessage() for record in logged)


@needs_rtx
def test_earlier_errors_are_nobody_elses() -> None:
    module_log = log("tensorrt_rtx")
    with errors_of("tensorrt_rtx") as errors:
        module_log.log(module_log.Severity.ERROR, "of the first")
        assert errors == ["of the first"]

    with errors_of("tensorrt_rtx") as errors:
        assert errors == []
        module_log.log(module_log.Severity.INTERNAL_ERROR, "of the\n  second")
        assert errors == ["of the second"]


@needs_rtx
@pytest.mark.parametrize(
    ("severity", "level", "is_error"),
    [
        ("INTERNAL_ERROR", logging.CRITICAL, True),
        ("ERROR", logging.ERROR, True),
        ("WARNING", logging.WARNING, False),
        ("INFO", logging.INFO, False),
        ("VERBOSE", logging.DEBUG, False),
    ],
)
def test_tensorrts_severities_are_pythons_levels(
    severity: str, level: int, is_error: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "batchcls.tensorrt")
    module_log = log("tensorrt_rtx")

    with errors_of("tensorrt_rtx") as errors:
        module_log.log(getattr(module_log.Severity, severity), "100 % of it")

        assert errors == (["100 % of it"] if is_error else [])
    assert caplog.record_tuples == [("batchcls.tensorrt", level, "100 % of it")]


def test_the_backend_refuses_the_cpu(tiny_engine: Path) -> None:
    with pytest.raises(EngineError, match="runs on a GPU, not on the CPU; run: batchcls run --device cuda"):
        open_engine(tiny_engine, backend="tensorrt", device="cpu", threads=1)


@needs_no_gpu
def test_the_backend_refuses_a_gpu_that_is_not_there(tiny_engine: Path) -> None:
    with pytest.raises(EngineError, match=r"device 'cuda:0' was asked for, .*; run: batchcls info"):
        open_engine(tiny_engine, backend="tensorrt", device="cuda:0", threads=1)


def test_without_cuda_bindings_the_command_that_brings_them_is_named(tiny_engine: Path) -> None:
    slide = draw(tiny_engine.parent / "slide.jpg")
    arguments = ["run", slide, "--engine", tiny_engine, "--out", "o.parquet", "--device", "cpu"]
    code = "import sys; sys.modules['cuda'] = None; from batchcls.cli import main; main(prog_name='batchcls')"

    process = subprocess.run(
        [sys.executable, "-c", code, *arguments, "--backend", "tensorrt"],
        cwd=tiny_engine.parent,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )

    assert process.returncode == 1
    assert len(process.stderr.splitlines()) == 1, process.stderr
    assert re.search(r"pip install '(cuda-bindings|batchcls\[(gpu|tensorrt))", process.stderr), process.stderr


# A driver that says what it is told to: how machines look that are not here.

DRIVER = """
#include <stdlib.h>
#include <string.h>
#define HANDLE 40
static int told(const char *name) { return atoi(getenv(name)); }
int cuInit(unsigned flags) { return told("FAKE_INIT"); }
int cuDeviceGetCount(int *count) { *count = told("FAKE_GPUS"); return 0; }
int cuDriverGetVersion(int *version) { *version = told("FAKE_CUDA"); return 0; }
int cuDeviceGet(int *device, int number) { *device = number + HANDLE; return 0; }
int cuDeviceGetName(char *name, int size, int device) {
    strncpy(name, "Card", size);
    name[4] = '0' + device - HANDLE;
    return 0;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = (size_t)24 << 30; return device < HANDLE; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    if (device < HANDLE || (attribute != 75 && attribute != 76)) return 1;
    *value = attribute == 75 ? told("FAKE_SM") / 10 : told("FAKE_SM") % 10;
    return 0;
}
int nvmlInit_v2(void) { return 0; }
int nvmlSystemGetDriverVersion(char *text, unsigned size) { strncpy(text, "580.95.05", size); return 0; }
"""

Elsewhere = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Elsewhere:
    """Runs `batchcls` where the driver shows GPUs that are not here; ``code`` runs first."""
    if COMPILER is None:
        pytest.skip("no C compiler here")
    folder = tmp_path_factory.mktemp("driver")
    for library in ("libcuda.so.1", "libnvidia-ml.so.1"):
        compiled(DRIVER, folder / library)

    def run(
        *arguments: str | Path, gpus: int = 1, sm: int = 86, cuda: int = 13_000, init: int = 0, code: str = ""
    ) -> "subprocess.CompletedProcess[str]":
        told = {"FAKE_GPUS": gpus, "FAKE_SM": sm, "FAKE_CUDA": cuda, "FAKE_INIT": init}
        start = f"import sys; sys.modules['tensorrt'] = None\n{code}\nfrom batchcls.cli import main\nmain()"
        return subprocess.run(
            [sys.executable, "-c", start, *map(str, arguments)],
            cwd=ROOT,
            env=os.environ | {key: str(value) for key, value in told.items()} | {"LD_LIBRARY_PATH": str(folder)},
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )

    return run


ASKED = "import sys; from batchcls.machine import chosen_devices; print(*chosen_devices('{}')); sys.exit()"


@pytest.mark.parametrize(
    ("asked", "gpus", "devices"),
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
def test_devices_are_those_that_are_asked_for(elsewhere: Elsewhere, asked: str, gpus: int, devices: str) -> None:
    assert elsewhere(gpus=gpus, code=ASKED.format(asked)).stdout.strip() == devices


@pytest.mark.parametrize(
    ("asked", "there", "message"),
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
    elsewhere: Elsewhere, asked: str, there: dict[str, int], message: str, tiny_engine: Path, tmp_path: Path
) -> None:
    slide = draw(tmp_path / "0.jpg")

    process = elsewhere(
        "run", slide, "--engine", tiny_engine, "--out", tmp_path / "o.parquet", "--device", asked, **there
    )

    assert process.returncode == 1
    assert len(process.stderr.splitlines()) == 1, process.stderr
    assert message in process.stderr
    assert not (tmp_path / "o.parquet").exists()


@pytest.mark.parametrize(
    ("there", "missing"),
    [
        ({"gpus": 0}, "the driver shows no GPU: run nvidia-smi"),
        ({"cuda": 12_080}, "the driver runs CUDA 12.8, DALI needs 13: update it from nvidia.com/drivers"),
    ],
)
def test_what_is_missing_for_gpus_is_said_with_what_brings_it(
    elsewhere: Elsewhere, there: dict[str, int], missing: str
) -> None:
    found = json.loads(elsewhere("info", "--json", **there).stdout)["machine"]

    assert missing in found["missing_for_gpus"]
    assert missing not in json.loads(elsewhere("info", "--json", cuda=14_010).stdout)["machine"]["missing_for_gpus"]


def test_gpus_are_described_as_the_driver_tells_of_them(elsewhere: Elsewhere) -> None:
    found = json.loads(elsewhere("info", "--json", gpus=2, sm=120).stdout)["machine"]

    assert (found["cuda"], found["driver"]) == ("13.0", "580.95.05")
    assert found["gpus"] == [
        {"number": number, "name": f"Card{number}", "sm": "sm120", "memory_bytes": 24 << 30} for number in (0, 1)
    ]


@needs_rtx
def test_tensorrt_for_rtx_refuses_a_card_that_it_does_not_know(elsewhere: Elsewhere, tiny_engine: Path) -> None:
    process = elsewhere("build", tiny_engine, sm=90)

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
    elsewhere: Elsewhere, tiny_onnx: Path, tmp_path: Path, sm: int, code: str, note: str
) -> None:
    process = elsewhere("build", tiny_onnx, "--out", tmp_path / "e", "--labels", "a,b,c", sm=sm, code=code)

    assert sorted(path.name for path in (tmp_path / "e").iterdir()) == ["engine.json", "model.onnx"]
    assert process.returncode == 0, process.stderr
    assert len(process.stderr.splitlines()) == 1, process.stderr
    assert process.stderr.startswith("no plan for the GPU was made: ")
    assert note in process.stderr


def test_without_any_tensorrt_the_commands_that_bring_one_are_named(elsewhere: Elsewhere, tiny_engine: Path) -> None:
    process = elsewhere("build", tiny_engine, code="import sys; sys.modules['tensorrt_rtx'] = None")

    assert process.returncode == 1
    assert process.stderr.startswith("batchcls: no TensorRT is installed; run: pip install 'tensorrt>=10.12'")
    assert len(process.stderr.splitlines()) == 1


@needs_rtx
def test_a_gpu_without_a_plan_for_it_is_an_error_before_any_plan_is_opened(
    elsewhere: Elsewhere, tiny_engine: Path, tmp_path: Path
) -> None:
    engine = shutil.copytree(tiny_engine, tmp_path / "e")
    build_plans_for(engine, ["sm120"], PlanOptions(), Console(quiet=True))
    slide = draw(tmp_path / "0.jpg")

    process = elsewhere("run", slide, "--engine", engine, "--out", tmp_path / "o.parquet")

    assert process.returncode == 1
    assert process.stderr == (
        f"batchcls: engine {str(engine)!r} has no plan for this Card0 (sm86); it has sm120-any-tensorrt_rtx "
        f"(sm sm120 here sm86); run: batchcls build {engine} --device cuda\n"
    )


@needs_rtx
def test_a_plan_that_fits_is_taken_as_far_as_the_driver_carries_it(
    elsewhere: Elsewhere, tiny_engine: Path, tmp_path: Path
) -> None:
    engine = shutil.copytree(tiny_engine, tmp_path / "e")
    build_plans_for(engine, ["sm86"], PlanOptions(), Console(quiet=True))
    slide = draw(tmp_path / "0.jpg")

    process = elsewhere("run", slide, "--engine", engine, "--out", tmp_path / "o.parquet")

    assert process.returncode == 1
    assert process.stderr.startswith("batchcls: CUDA failed: ")
    assert len(process.stderr.splitlines()) == 1, process.stderr
    assert not (tmp_path / "o.parquet").exists()
