"""Calls of TensorRT and CUDA fit the signatures of their bindings, where there is no GPU to call them on."""

import ast
import inspect
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.c_libraries import COMPILER, compile_library
from tests.commandline import PATIENCE_S
from tests.conftest import ROOT

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
RTX_CORRECTIONS = {
    # Their docstrings name the class as C++ does.
    r"(def create_runtime_cache\(self), \*args, \*\*kwargs\): \.\.\.": r"\1) -> IRuntimeCache: ...",
    r"def set_runtime_cache\(self, cache=\.\.\.\)": "def set_runtime_cache(self, cache: IRuntimeCache)",
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
PLAN, API, BACKEND = "building/tensorrt_plan.py", "engine/backends/tensorrt_api.py", "engine/backends/tensorrt.py"
CACHE = "engine/backends/runtime_cache.py"
CALLERS = (PLAN, API, BACKEND, CACHE)
CUDA = ROOT / "batchcls" / "engine" / "backends" / "cuda.py"
APIS = ("tensorrt", "tensorrt_rtx")
RTX = ("tensorrt_rtx",)


@dataclass(frozen=True)
class Mistake:
    """One that somebody could make in ``file``; ``apis`` are those in which it is one."""

    file: str
    right: str
    wrong: str
    apis: tuple[str, ...] = APIS


MISTAKES = [
    Mistake(PLAN, "NetworkDefinitionCreationFlag.STRONGLY_TYPED", "NetworkDefinitionCreationFlag.STRONG_TYPES"),
    Mistake(PLAN, "trt.NetworkDefinitionCreationFlag", "trt.NetworkCreationFlag"),
    Mistake(PLAN, "builder.create_builder_config()", "builder.create_builder_config(0)"),
    Mistake(PLAN, "builder.create_optimization_profile()", "builder.create_optimisation_profile()"),
    Mistake(PLAN, "trt.OnnxParser(network, module_logger(target.module))", "trt.OnnxParser(network)"),
    Mistake(PLAN, "parser.num_errors", "parser.errors"),
    Mistake(PLAN, ".desc()", ".description()"),
    Mistake(PLAN, "config.progress_monitor =", "config.monitor ="),
    Mistake(PLAN, "network.get_input(0)", "network.get_input()"),
    Mistake(PLAN, "profile.set_shape(pixels.name, shape, shape, shape)", "profile.set_shape(pixels.name, shape)"),
    Mistake(PLAN, "list(pixels.shape)", "list(pixels.dims)"),
    Mistake(PLAN, "pixels.shape =", "pixels.dims ="),
    Mistake(PLAN, "config.add_optimization_profile(profile)", "config.add_profile(profile)"),
    Mistake(PLAN, "config.builder_optimization_level =", "config.optimization_level ="),
    Mistake(PLAN, "MemoryPoolType.WORKSPACE", "MemoryPoolType.SCRATCH"),
    Mistake(PLAN, "trt.MemoryPoolType.WORKSPACE, options.workspace_bytes", "options.workspace_bytes"),
    Mistake(PLAN, "build_serialized_network(network, config)", "build_serialized_network(network)"),
    Mistake(PLAN, "build_serialized_network(", "build_engine("),
    Mistake(PLAN, "config.create_timing_cache(before)", "config.create_timing_cache()"),
    Mistake(PLAN, "config.set_timing_cache(timings, False)", "config.set_timing_cache(timings)"),
    Mistake(PLAN, "config.get_timing_cache()", "config.timing_cache()"),
    Mistake(PLAN, "after.serialize()", "after.serialise()"),
    Mistake(PLAN, "trt.IProgressMonitor", "trt.ProgressMonitor"),
    Mistake(PLAN, "def step_complete(self, phase_name: str, step: int)", "def step_complete(self, step: int)"),
    Mistake(PLAN, "config.num_compute_capabilities =", "config.compute_capabilities =", RTX),
    Mistake(PLAN, "config.set_compute_capability(", "config.add_compute_capability(", RTX),
    Mistake(PLAN, "REQUIRE_USER_ALLOCATION", "USER_ALLOCATION", RTX),
    Mistake(PLAN, "config.set_flag(", "config.add_flag(", RTX),
    Mistake(PLAN, "rtx.ComputeCapability", "rtx.ComputeCapabilities", RTX),
    Mistake(PLAN, "[target.sm.upper()], 0)", "[target.sm.upper()])", RTX),
    Mistake(API, "Severity.WARNING", "Severity.WARN"),
    Mistake(API, "Severity.INTERNAL_ERROR", "Severity.INTERNAL"),
    Mistake(API, "def log(self, severity: Any, msg: str)", "def log(self, msg: str)"),
    Mistake(API, "(trt.ILogger)", "(trt.ILog)"),
    Mistake(API, "trt.ComputeCapability", "trt.Capability", RTX),
    Mistake(BACKEND, "trt.Runtime(module_logger(module))", "trt.Runtime()"),
    Mistake(BACKEND, "runtime.deserialize_cuda_engine(plan)", "runtime.deserialize(plan)"),
    Mistake(BACKEND, "engine.create_execution_context(", "engine.create_context("),
    Mistake(BACKEND, "AllocationStrategy.USER_MANAGED", "AllocationStrategy.USER"),
    Mistake(BACKEND, "engine.device_memory_size_v2", "engine.device_memory_bytes"),
    Mistake(BACKEND, "set_device_memory(self._scratch.address, scratch_bytes)", "set_device_memory(1)"),
    Mistake(BACKEND, "engine.num_io_tensors", "engine.num_bindings"),
    Mistake(BACKEND, "engine.get_tensor_name(number)", "engine.get_tensor_name()"),
    Mistake(BACKEND, "engine.get_tensor_shape(name)", "engine.get_binding_shape(name)"),
    Mistake(BACKEND, "set_tensor_address(name, memory.address)", "set_tensor_address(8)"),
    Mistake(BACKEND, "execute_async_v3(", "execute_async_v2("),
    Mistake(BACKEND, "execute_async_v3(int(self._stream.handle))", "execute_async_v3()"),
    Mistake(CACHE, "engine.create_runtime_config()", "engine.create_config()", RTX),
    Mistake(CACHE, "_config.set_execution_context_allocation_strategy(", "_config.set_allocation(", RTX),
    Mistake(CACHE, "AllocationStrategy.USER_MANAGED", "AllocationStrategy.USER", RTX),
    Mistake(CACHE, "_config.create_runtime_cache()", "_config.create_cache()", RTX),
    Mistake(CACHE, "_cache.deserialize(kernels)", "_cache.deserialize(self._file)", RTX),
    Mistake(CACHE, "_config.set_runtime_cache(", "_config.add_runtime_cache(", RTX),
    Mistake(CACHE, "set_runtime_cache(self._cache)", "set_runtime_cache(kernels)", RTX),
    Mistake(CACHE, "create_execution_context(self._config)", "create_execution_context(self._cache)", RTX),
    Mistake(CACHE, "_cache.serialize()", "_cache.save()", RTX),
    Mistake(CACHE, "kernels.nbytes", "kernels.size", RTX),
]


def stub_text(module: str, folder: Path) -> str:
    """What the bindings ``tensorrt_bindings.tensorrt`` or ``tensorrt_rtx_bindings.tensorrt_rtx`` tell of themselves."""
    if module == "tensorrt":
        for library in LIBRARIES:
            compile_library("".join(f"void *{symbol}(void) {{ return 0; }}\n" for symbol in SYMBOLS), folder / library)
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
    for pattern, correct in {**CORRECTIONS, **(RTX_CORRECTIONS if module == "tensorrt_rtx" else {})}.items():
        text, count = re.subn(pattern, correct, text, flags=re.MULTILINE)
        assert count, f"{module} has no {pattern} any more"
    return text


def typed(source: str) -> str:
    """``source`` with imports that mypy follows in the place of those that are made when it runs."""

    def imported(match: re.Match[str]) -> str:
        module = "tensorrt_rtx" if match[3] == '"tensorrt_rtx"' else "tensorrt"
        return f"{match[1]}import {module} as {match[2]}"

    text, count = re.subn(r"^( +)(trt|rtx) = tensorrt_module\((.+)\)$", imported, source, flags=re.MULTILINE)
    assert count
    text = text.replace("# type: ignore[name-defined,misc]", "#")  # needed only where the module is not known
    assert not re.search(r"\b(?:trt|rtx)\b.*= tensorrt_module\(", text)
    return text


def replace_code(source: str, right: str, wrong: str) -> str:
    assert right in source
    return source.replace(right, wrong)


@pytest.fixture(scope="module", params=APIS)
def mypy_errors(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, str]]:
    """One of the APIs, and mypy's errors about our code against it, by file; mistakes are files of their own."""
    module: str = request.param
    if COMPILER is None:
        pytest.skip("no C compiler here")
    if not find_spec(f"{module}_bindings"):
        pytest.skip(f"the bindings of {module} are not installed")
    folder = tmp_path_factory.mktemp(module)
    (folder / "stubs" / module).mkdir(parents=True)
    (folder / "stubs" / module / "__init__.pyi").write_text(stub_text(module, folder))
    if module == "tensorrt_rtx":  # it takes the place of the other, as it does when it runs
        (folder / "stubs" / "tensorrt").mkdir()
        (folder / "stubs" / "tensorrt" / "__init__.pyi").write_text("from tensorrt_rtx import *\n")
    package = folder / "source" / "batchcls"
    shutil.copytree(ROOT / "batchcls", package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in CALLERS:
        (package / name).write_text(typed((package / name).read_text()))
    for number, mistake in enumerate(MISTAKES):
        wrong = replace_code((package / mistake.file).read_text(), mistake.right, mistake.wrong)
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
        if match := re.match(r"batchcls/(\S+?\.py):\d+: error: ", line):
            errors[match[1]] = errors.get(match[1], "") + line + "\n"
    return module, errors


@pytest.mark.parametrize("name", CALLERS)
def test_every_call_of_tensorrt_is_one_that_its_bindings_know(
    mypy_errors: tuple[str, dict[str, str]], name: str
) -> None:
    assert mypy_errors[1].get(name, "") == ""


@pytest.mark.parametrize("number", range(len(MISTAKES)), ids=[mistake.wrong for mistake in MISTAKES])
def test_a_call_that_tensorrt_does_not_know_would_be_seen(mypy_errors: tuple[str, dict[str, str]], number: int) -> None:
    module, errors = mypy_errors

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
    source = CUDA.read_text()

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

    assert calls_that_do_not_fit(replace_code(CUDA.read_text(), right, wrong)) != []
