"""PyTorch on a GPU: compiled, recorded for the batch size that was asked for, and right without a compiler too."""

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest

from batchcls.engine.check import check_answers
from batchcls.engine.manifest import Manifest
from batchcls.engine.probes import draw_probes
from tests.conftest import ALL4, ROOT
from tests.engines import opened_engine
from tests.gpu.conftest import Measured

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("onnx", reason="onnx is not installed")

pytestmark = pytest.mark.gpu
DEVICE = "cuda:0"


@pytest.mark.timeout(300)
def test_a_network_is_compiled_where_triton_is_and_answers_the_probes(measured: Measured) -> None:
    pytest.importorskip("triton", reason="Triton is not installed")
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    since = perf_counter()
    with closing(opened_engine(ALL4, backend="torch", device=DEVICE)) as engine:
        start_s = perf_counter() - since
        check = check_answers(engine, Manifest.read(ALL4))

        assert engine.info.backend == "torch.compile", engine.notes
        assert engine.batch_size == 256
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1, "compiled once for both lanes"
        assert check.top1_agreement == 1.0
    measured("start of PyTorch's engine, compiled or from PyTorch's cache", f"{start_s:.1f} s")
    measured("compiled PyTorch's probes, largest difference", f"{check.largest_difference:.4f}")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("batch_size", [1, 48])
def test_batches_are_recorded_in_the_size_that_was_asked_for(batch_size: int) -> None:
    pixels = draw_probes((224, 224))
    with closing(opened_engine(ALL4, backend="torch", device=DEVICE, batch_size=batch_size)) as engine:
        assert engine.batch_size == batch_size
        logits = engine.infer(pixels).logits
    with closing(opened_engine(ALL4, backend="torch")) as reference:
        np.testing.assert_allclose(logits, reference.infer(pixels).logits, atol=0.1)


WITHOUT_COMPILER = """
from pathlib import Path
from batchcls.engine.backends import open_engine
from batchcls.engine.check import check_answers
from batchcls.engine.manifest import Manifest

folder = Path("engines/all4-googlenet")
engine = open_engine(folder, Manifest.read(folder), backend="torch", device="cuda:0", threads=1)
check_answers(engine, Manifest.read(folder))
print(engine.info.backend, *engine.notes)
"""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("setting", ["TORCHDYNAMO_DISABLE", "CC"])
def test_without_a_compiler_the_network_runs_as_it_is_and_the_reason_is_said(
    setting: str, tmp_path: Path, measured: Measured
) -> None:
    own = {"TORCHDYNAMO_DISABLE": "1"} if setting == "TORCHDYNAMO_DISABLE" else {"CC": "/bin/false"}
    caches = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "inductor"), "TRITON_CACHE_DIR": str(tmp_path / "triton")}
    process = subprocess.run(
        [sys.executable, "-c", WITHOUT_COMPILER],
        cwd=ROOT,
        env=os.environ | caches | own,
        capture_output=True,
        text=True,
        check=True,
        timeout=280,
    )

    backend, _, note = process.stdout.strip().partition(" ")
    assert (backend == "torch") == note.startswith("the network is not compiled")
    assert backend == "torch" or setting == "CC", "some versions of PyTorch need no C compiler"
    measured(f"PyTorch's engine with {setting}", process.stdout.strip())
