"""The suite measures what it says, on a few images."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from batchcls.backends.torch import TorchEngine
from batchcls.backends.torch import open as open_torch
from batchcls.manifest import ONNX, Manifest
from benchmarks.cases import CASES
from benchmarks.peers import unfused_googlenet
from benchmarks.record import Record
from benchmarks.report import newest, roof
from benchmarks.suite import run_suite
from benchmarks.workload import CROPS, draw_field
from tests.conftest import ALL4

CROPS_64 = replace(CROPS, images=64)


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return CROPS_64.draw(tmp_path_factory.mktemp("workload"))


def test_a_workload_drawn_again_has_the_same_bytes(crops: Path, tmp_path: Path) -> None:
    again = replace(CROPS, images=2).draw(tmp_path)
    assert [file.read_bytes() for file in sorted(again.iterdir())] == [
        file.read_bytes() for file in sorted(crops.iterdir())[:2]
    ]


def test_fields_of_different_seeds_differ() -> None:
    first, second = (np.asarray(draw_field(np.random.default_rng(seed), 64, 48)) for seed in (1, 2))
    assert (first != second).any()


def test_every_kind_of_case_runs_and_agrees_with_the_reference(crops: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = ["end-to-end", "decode-only turbo", "engine-only", "torchvision eager FP32, 0 workers"]
    records = {record.case: record for record in run_suite(crops, "crops", ALL4, cases, repeats=1, console=Console())}
    assert [record.images for record in records.values()] == [64, 64, 256, 64]
    assert all(record.images_per_s > 0 and record.peak_memory_bytes > 2**26 for record in records.values())
    assert records["end-to-end"].top1_agreement == 1.0
    assert records["engine-only"].top1_agreement is None


def test_the_experts_peer_is_one_of_the_cases() -> None:
    assert "torchvision channels_last bf16, 2 workers" in CASES


def test_the_peers_network_is_the_engines() -> None:
    manifest = Manifest.read(ALL4)
    engine = open_torch(manifest, ALL4 / ONNX, device="cpu", threads=2)
    assert isinstance(engine, TorchEngine)
    pixels = np.array(draw_field(np.random.default_rng(3), 224, 224))[None]
    mean, std = np.asarray(manifest.preprocess.mean), np.asarray(manifest.preprocess.std)
    images = torch.from_numpy(((pixels / 255 - mean) / std).transpose(0, 3, 1, 2)).float()
    with torch.inference_mode():
        logits = unfused_googlenet(ALL4, 4)(images).numpy()
    np.testing.assert_allclose(logits, engine.infer(pixels), atol=1e-3)


def test_records_come_back_from_their_file_and_only_whole_runs_are_reported(tmp_path: Path) -> None:
    def record(case: str, run: str, seconds: float, repeats: int = 5) -> Record:
        samples = tuple(seconds * (1 + step / 100) for step in range(repeats))
        return Record(case, "w", 100, samples, 1, None, machine={}, commit="c", run=run)

    old, new = record("end-to-end", "2026-01-01", 2.0), record("end-to-end", "2026-01-02", 1.0)
    hasty = record("end-to-end", "2026-01-03", 0.1, repeats=1)
    for item in (old, new, hasty):
        item.append(tmp_path / "records.jsonl")
    assert newest(Record.read_all(tmp_path / "records.jsonl")) == {"w": [new]}


def test_the_roof_is_what_both_stages_take_one_after_the_other() -> None:
    stages = [
        Record(case, "w", 100, (seconds,), 1, None, machine={})
        for case, seconds in [("decode-only turbo", 1.0), ("engine-only", 3.0)]
    ]
    assert roof(stages) == pytest.approx(25.0)
