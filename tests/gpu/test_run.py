"""The whole run on a GPU: `make test-gpu`."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from tests.commandline import links
from tests.conftest import ALL4, DATA, draw
from tests.gpu.conftest import Measured

pytest.importorskip("nvidia.dali", reason="DALI is not installed")
pytest.importorskip("cykooz_resizer", reason="cykooz.resizer is not installed")
pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("pyarrow", minversion="26.0", reason="pyarrow 26 or newer is not installed")

import pyarrow.parquet as pq

from batchcls import machine
from batchcls.engine.backends import tensorrt_api
from batchcls.inference.options import RunOptions
from batchcls.inference.run import classify_images
from batchcls.inference.stats import RunStats

pytestmark = pytest.mark.gpu
DEVICE = "cuda:0"
BACKENDS = ["torch", "tensorrt"]


@pytest.fixture(params=BACKENDS)
def engine(request: pytest.FixtureRequest) -> tuple[str, Path]:
    """A backend, and an engine folder that it can run on the GPU."""
    folder: Path = request.getfixturevalue("gpu_engine") if request.param == "tensorrt" else ALL4
    return request.param, folder


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real images where they are, else drawn ones of the same size."""
    if (DATA / "all4").is_dir():
        return DATA / "all4"
    folder = tmp_path_factory.mktemp("slides")
    for seed in range(600):
        draw(folder / f"{seed:03}.jpg", seed, (224, 224), quality=90)
    return folder


def ran(
    engine: tuple[str, Path], slides: Path, out: Path, **options: Any
) -> tuple[RunStats, dict[str, dict[str, Any]]]:
    """The run's tally, and its rows by path; in this process, unless ``options`` say otherwise."""
    backend, folder = engine
    asked: dict[str, Any] = {"device": DEVICE, "backend": backend, "processes": 1, **options}
    tally = classify_images([slides], folder, out, RunOptions(**asked), Console(quiet=True))
    return tally, {row["path"]: row for row in pq.read_table(out).to_pylist()}


def test_labels_are_those_of_float32_on_the_cpu(
    engine: tuple[str, Path], slides: Path, tmp_path: Path, measured: Measured
) -> None:
    _, reference = ran(("torch", ALL4), slides, tmp_path / "r.parquet", device="cpu", decoder="pillow")
    tally, found = ran(engine, slides, tmp_path / "o.parquet")
    names = [path for path, row in reference.items() if row["error"] is None]
    agreement = np.mean([found[path]["label"] == reference[path]["label"] for path in names])
    both = (np.array([rows[path]["probabilities"] for path in names]) for rows in (found, reference))
    largest = float(np.abs(np.subtract(*both)).max())
    what = f"{tally.info.backend} {tally.info.precision} and DALI on {machine.gpu(DEVICE).name}, {slides.name}"
    measured(f"top-1 agreement, {what}", f"{agreement:.5f} of {len(names):,}")
    measured(f"largest probability difference, {what}", f"{largest:.4f}")
    assert tally.rows == len(reference)
    assert agreement >= (0.999 if slides.name == "all4" else 0.99)


def test_every_broken_file_has_the_row_that_it_has_on_the_cpu(
    engine: tuple[str, Path], tmp_path: Path, measured: Measured
) -> None:
    folder = tmp_path / "slides"
    for seed in range(200):
        path = draw(folder / f"{seed:03}.jpg", seed, (640, 480))
        if seed % 10 == 0:  # the end is gone, or what is between is nonsense, or there is nothing
            content = bytearray(path.read_bytes())
            content[len(content) // 2 :] = [b"", bytes(len(content) // 2 - 2) + b"\xff\xd9"][seed % 20 // 10]
            path.write_bytes(content)
    (folder / "empty.png").touch()
    (folder / "not.bmp").write_text("no image")
    _, on_cpu = ran(("null", ALL4), folder, tmp_path / "c.parquet", device="cpu", decoder="dali")
    _, on_gpu = ran(engine, folder, tmp_path / "g.parquet")
    assert {path: row["error"] for path, row in on_gpu.items()} == {path: row["error"] for path, row in on_cpu.items()}
    broken = sum(row["error"] is not None for row in on_gpu.values())
    assert broken >= 12
    measured(f"broken files with a row of their own, {engine[0]}", f"{broken} of {len(on_gpu)}")


@pytest.mark.timeout(240)
def test_memory_does_not_grow_with_the_folder(engine: tuple[str, Path], tmp_path: Path, measured: Measured) -> None:
    sources = [draw(tmp_path / "sources" / f"{seed}.jpg", seed, (224 + seed, 224), quality=90) for seed in range(64)]
    folder = links(tmp_path / "slides", 100_000, sources)
    with sampled_memory(tmp_path) as samples:
        tally, _ = ran(engine, folder, tmp_path / "o.parquet", processes=None)
    parts = max(written for written, _ in samples)
    # With the first part written, everything is open and warm.
    early = max(mib for written, mib in samples if 1 <= written <= parts // 2)
    late = max(mib for written, mib in samples if written > parts // 2)
    measured(f"device memory, first and second half of 100,000 images, {engine[0]}", f"{early:,} and {late:,} MiB")
    measured(f"end to end with nothing warm, {engine[0]}", f"{tally.images_per_s:,.0f} images/s")
    measured(f"most memory of the host, {engine[0]}", f"{tally.peak_memory_bytes >> 20:,} MiB")
    assert tally.rows == 100_000
    assert late <= early * 1.05 + 64


def test_a_killed_run_goes_on(engine: tuple[str, Path], slides: Path, tmp_path: Path) -> None:
    backend, folder = engine
    out = tmp_path / "o.parquet"
    command = [sys.executable, "-m", "batchcls", "run", slides, "--engine", folder, "--device", DEVICE]
    command += ["--backend", backend, "--processes", "1", "--out", out]
    first = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while first.poll() is None and not list(tmp_path.glob("*.partial/run.json")):
        pass
    first.send_signal(signal.SIGKILL)
    first.wait()
    subprocess.run([*command, "--overwrite"], check=True, timeout=250)
    _, whole = ran(engine, slides, tmp_path / "w.parquet")
    rows = {row["path"]: row for row in pq.read_table(out).to_pylist()}
    assert rows.keys() == whole.keys()
    both = (np.array([found[path]["probabilities"] for path in whole]) for found in (rows, whole))
    np.testing.assert_allclose(*both, atol=0.01)


def test_processes_on_all_gpus_share_a_run(engine: tuple[str, Path], slides: Path, tmp_path: Path) -> None:
    _, one = ran(engine, slides, tmp_path / "one.parquet")
    tally, shared = ran(engine, slides, tmp_path / "all.parquet", device="all", processes=None)
    assert tally.info.device.count("cuda:") == len(machine.gpus())
    assert [row["label"] for row in shared.values()] == [row["label"] for row in one.values()]


def test_the_plan_was_made_for_this_gpu(gpu_engine: Path, measured: Measured) -> None:
    (path,) = (gpu_engine / "plans").glob("*.json")
    sidecar = json.loads(path.read_text())
    gpu = machine.gpu(DEVICE)
    here = tensorrt_api.local_target(sidecar["target"]["module"], gpu)
    assert sidecar["target"] == asdict(here)
    measured("plan against recorded answers", str(sidecar["check"]))


@contextmanager
def sampled_memory(folder: Path) -> Iterator[list[tuple[int, int]]]:
    """Twenty times a second: parts of the output in ``folder``, and MiB taken on the GPU by all processes."""
    import torch

    samples: list[tuple[int, int]] = []
    done = threading.Event()

    def sample() -> None:
        while not done.wait(0.05):
            free, total = torch.cuda.mem_get_info(DEVICE)
            samples.append((len(list(folder.glob("*.partial/part-*"))), (total - free) >> 20))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        done.set()
        thread.join()
