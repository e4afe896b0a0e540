"""TensorRT's messages reach Python's logging and our errors, and its backend says what it lacks."""

import logging
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from batchcls import machine
from batchcls.engine.backends.tensorrt_api import logged_errors, module_logger
from batchcls.errors import EngineError
from tests.commandline import PATIENCE_S, after_loading
from tests.conftest import ROOT, draw
from tests.engines import opened_engine

HAS_RTX = find_spec("tensorrt_rtx") is not None

needs_rtx = pytest.mark.skipif(not HAS_RTX, reason="TensorRT for RTX is not installed")
needs_no_gpu = pytest.mark.skipif(bool(machine.gpus()), reason="it is about machines without a GPU")


@needs_no_gpu
def test_without_a_gpu_cuda_says_why_it_cannot_work() -> None:
    pytest.importorskip("cuda.bindings")
    from batchcls.engine.backends import cuda

    with pytest.raises(EngineError, match=r"^CUDA failed: .* \(cudaError\w+\); see the GPU's state with: nvidia-smi$"):
        cuda.use_gpu(0)


@needs_rtx
def test_what_tensorrt_refuses_is_logged_and_collected(caplog: pytest.LogCaptureFixture) -> None:
    import tensorrt_rtx as trt

    with logged_errors("tensorrt_rtx") as errors:
        network = trt.Builder(module_logger("tensorrt_rtx")).create_network(0)
        assert not trt.OnnxParser(network, module_logger("tensorrt_rtx")).parse(b"no network")
        collected = list(errors)

    logged = [record for record in caplog.records if record.name == "batchcls.tensorrt"]
    assert any("Failed to parse the ONNX model" in error for error in collected)
    assert all("\n" not in error for error in collected)
    assert any(record.levelno == logging.ERROR and "Failed to parse" in record.getMessage() for record in logged)


@needs_rtx
def test_earlier_errors_are_nobody_elses() -> None:
    module_log = module_logger("tensorrt_rtx")
    with logged_errors("tensorrt_rtx") as errors:
        module_log.log(module_log.Severity.ERROR, "of the first")
        assert errors == ["of the first"]

    with logged_errors("tensorrt_rtx") as errors:
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
    module_log = module_logger("tensorrt_rtx")

    with logged_errors("tensorrt_rtx") as errors:
        module_log.log(getattr(module_log.Severity, severity), "100 % of it")

        assert errors == (["100 % of it"] if is_error else [])
    assert caplog.record_tuples == [("batchcls.tensorrt", level, "100 % of it")]


def test_the_backend_refuses_the_cpu(tiny_engine: Path) -> None:
    with pytest.raises(EngineError, match="runs on a GPU, not on the CPU; run: batchcls run --device cuda"):
        opened_engine(tiny_engine, backend="tensorrt", threads=1)


@needs_no_gpu
def test_the_backend_refuses_a_gpu_that_is_not_there(tiny_engine: Path) -> None:
    with pytest.raises(EngineError, match=r"device 'cuda:0' was asked for, .*; run: batchcls info"):
        opened_engine(tiny_engine, backend="tensorrt", device="cuda:0", threads=1)


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
    assert len(after_loading(process.stderr).splitlines()) == 1, process.stderr
    assert re.search(r"pip install '(cuda-bindings|batchcls\[(gpu|tensorrt))", process.stderr), process.stderr
