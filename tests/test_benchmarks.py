"""The suite measures what it says, on a few images."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from rich.console import Console

from batchcls.engine.backends.torch import TorchEngine
from batchcls.engine.backends.torch import open_engine as open_torch
from batchcls.engine.manifest import ONNX, Manifest
from benchmarks.cases import CASES
from benchmarks.charts import draw
from benchmarks.check import changes
from benchmarks.networks import unfused_googlenet
from benchmarks.record import RESULTS, Record
from benchmarks.report import summary, table
from benchmarks.runs import (
    BF16_LOOP,
    FP32_LOOP,
    GROWTH,
    committed_records,
    limit_fractions,
    newest_runs,
    reported_runs,
    run_ratios,
    speedups,
)
from benchmarks.suite import SuiteConfig, agreement, case_candidates, reference_answers, run_suite
from benchmarks.workload import CROPS, Workload, draw_field, link_images
from tests.conftest import ALL4, ROOT

CROPS_64 = replace(CROPS, images=64)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch")


@pytest.fixture(scope="module")
def config(scratch: Path) -> SuiteConfig:
    return SuiteConfig("crops", CROPS_64.draw(scratch), ALL4, scratch, "cpu", Console(quiet=True))


def test_a_workload_drawn_again_has_the_same_bytes(config: SuiteConfig, tmp_path: Path) -> None:
    again = replace(CROPS, images=2).draw(tmp_path)
    assert [file.read_bytes() for file in sorted(again.iterdir())] == [file.read_bytes() for file in config.files[:2]]


def test_fields_of_different_seeds_differ() -> None:
    first, second = (np.asarray(draw_field(np.random.default_rng(seed), 64, 48)) for seed in (1, 2))
    assert (first != second).any()


@pytest.mark.parametrize("format_", ["JPEG", "BMP", "PNG", "TIFF"])
def test_a_workload_is_of_the_format_and_size_that_it_says(format_: str, tmp_path: Path) -> None:
    folder = Workload("w", 64, 48, images=6, format=format_, files_per_folder=2).draw(tmp_path)
    assert sorted(len(list(below.iterdir())) for below in folder.iterdir()) == [2, 2, 2]
    for file in folder.rglob("*.*"):
        with Image.open(file) as image:
            assert (image.format, image.size) == (format_, (64, 48))
            image.load()


def test_of_a_corrupt_workload_so_many_files_cannot_be_read(tmp_path: Path) -> None:
    folder = Workload("w", 64, 48, images=20, corrupt_fraction=0.1).draw(tmp_path)
    config = SuiteConfig("corrupt", folder, ALL4, tmp_path, "cpu", Console(quiet=True))
    (record,) = run_suite(config, case_candidates(config, ["end-to-end"]), repeats=1)
    assert record.images == 20
    assert record.details["unreadable"] == 2
    assert record.top1_agreement == 1.0


def test_a_linked_folder_has_so_many_files(config: SuiteConfig) -> None:
    assert len(os.listdir(link_images(config.folder, 150))) == 150


def test_links_to_one_file_share_its_reference_answer(config: SuiteConfig) -> None:
    folder = link_images(config.folder, 150)
    answers = reference_answers(SuiteConfig("linked", folder, ALL4, config.scratch, "cpu", Console(quiet=True)))
    sources = reference_answers(config)
    assert sorted(answers) == sorted(os.listdir(folder))
    for number, name in enumerate(sorted(answers)):
        assert answers[name] == sources[sorted(sources)[number % len(sources)]]
    kept = [pq.read_metadata(path).num_rows for path in (config.scratch / "reference").glob(f"{folder.name}-*")]
    assert kept == [len(sources)]


def test_a_machine_without_openvino_can_measure_its_gpu() -> None:
    code = "import sys; sys.modules['openvino'] = None; import benchmarks.__main__, benchmarks.suite, benchmarks.report"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("case", CASES)
def test_every_case_runs_and_agrees_with_the_reference(case: str, config: SuiteConfig) -> None:
    (record,) = run_suite(config, case_candidates(config, [case]), repeats=1)
    assert record.images_per_s > 0
    assert record.peak_memory_bytes > 2**25
    if case.startswith("end-to-end"):
        assert record.images == 64
        assert record.top1_agreement is not None
        assert record.top1_agreement >= (0.9 if "int8" in case else 1.0)
        assert record.largest_difference is not None
        assert 0 < record.largest_difference < (0.5 if "int8" in case else 0.1)
    else:
        assert record.top1_agreement is None


def test_agreement_is_over_the_files_that_both_answer() -> None:
    ours = {"a": [0.75, 0.25], "b": [0.25, 0.75], "c": None, "d": [1.0, 0.0]}
    theirs = {"a": [0.5, 0.5], "b": [0.75, 0.25], "c": [1.0, 0.0]}
    assert agreement(ours, theirs) == (0.5, 0.5)
    assert agreement({}, theirs) == (None, None)


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


def record(case: str, seconds: Sequence[float], run: str = "2026-01-01", workload: str = "w") -> Record:
    answers = not case.endswith("-only")
    return Record(
        case,
        workload,
        images=100,
        samples_s=tuple(seconds),
        peak_memory_bytes=2**30,
        top1_agreement=1.0 if answers else None,
        largest_difference=0.01 if answers else None,
        settings={"device": "cpu", "network": "googlenet"},
        machine={"cpu": "a CPU", "cpu_features": ["avx2"], "cores": 2},
        commit="c",
        run=run,
    )


def a_run(run: str, seconds: float) -> list[Record]:
    """The records of a run on one workload whose end-to-end case takes about ``seconds``."""
    turns = [1.0, 1.01, 0.99, 1.02, 0.98]
    return [
        record("end-to-end", [seconds * turn for turn in turns], run),
        record("decode-only turbo", [0.25 * turn for turn in turns], run),
        record("engine-only", [0.75 * turn for turn in turns], run),
        record(f"{FP32_LOOP}, 2 workers", [5.0 * turn for turn in turns], run),
        record(f"{BF16_LOOP}, 0 workers", [2.0 * turn for turn in turns], run),
    ]


def test_records_come_back_from_their_file_and_only_whole_runs_are_reported(tmp_path: Path) -> None:
    old, new = record("end-to-end", [2.0] * 5, "2026-01-01"), record("end-to-end", [1.0] * 5, "2026-01-02")
    hasty = record("end-to-end", [0.1], "2026-01-03")
    for item in (old, new, hasty):
        item.append(tmp_path / "records.jsonl")
    assert newest_runs(Record.read_all(tmp_path / "records.jsonl")) == {"w": [new]}
    assert newest_runs(Record.read_all(tmp_path / "records.jsonl"), skipped=1) == {"w": [old]}


def test_ratios_are_of_the_same_turn_and_the_roof_of_both_stages_one_after_the_other() -> None:
    run = a_run("r", 1.25)
    assert speedups(run[0], run[3]) == pytest.approx([4.0] * 5)
    assert limit_fractions(run[0], run) == pytest.approx([0.8] * 5)
    assert limit_fractions(run[0], run[:2]) == []
    assert run_ratios(run).keys() == {
        "end-to-end, fraction of the hardware's limit",
        "end-to-end vs. PyTorch FP32 loop",
        "end-to-end vs. PyTorch BF16 loop",
    }


def test_on_a_gpu_the_roof_is_the_slower_stage() -> None:
    stages = [("end-to-end", 2.0), ("decode-only dali", 1.0), ("engine-only", 1.6)]
    run = [replace(record(case, [seconds]), settings={"device": "cuda:0"}) for case, seconds in stages]
    assert limit_fractions(run[0], run) == pytest.approx([0.8])


def test_the_table_has_a_row_for_each_record() -> None:
    lines = table({"w": a_run("r", 1.25)}).splitlines()
    assert len(lines) == 7
    cells = [cell.strip() for cell in lines[2].split("|")]
    assert cells[1:8] == [
        "w, 100",
        "end-to-end",
        "80 (78.4 to 81.6)",
        "4.00x",
        "1.60x",
        "0.80",
        "100.00%, within 0.010",
    ]


def test_a_check_tells_slower_from_noise() -> None:
    before = {"w": a_run("1", 1.25)}
    assert not any(change.beyond_noise for change in changes(before, {"w": a_run("2", 1.26)}))
    slower = changes(before, {"w": a_run("2", 1.6)})
    assert [change.slower for change in slower] == [True] * 3
    assert "w, end-to-end vs. PyTorch FP32 loop: 4.00 -> 3.12 (-21.9%), slower" in map(str, slower)
    assert not any(change.slower for change in changes(before, {"w": a_run("2", 1.0)}))


def test_the_check_command_ends_with_1_if_something_got_slower(tmp_path: Path) -> None:
    for name, seconds in (("before", 1.25), ("after", 1.6)):
        for item in a_run(name, seconds):
            item.append(tmp_path / f"{name}.jsonl")
    command = [sys.executable, "-m", "benchmarks", "check", tmp_path / "before.jsonl"]
    slower = subprocess.run([*command, tmp_path / "after.jsonl"], capture_output=True, text=True, check=False)
    same = subprocess.run([*command, tmp_path / "before.jsonl"], capture_output=True, text=True, check=False)
    assert (slower.returncode, same.returncode) == (1, 0)
    assert slower.stdout.count("slower") == 3


def test_figures_of_two_kinds_of_cpu_stand_apart_and_are_never_compared(tmp_path: Path) -> None:
    zen_3 = [replace(item, machine=item.machine | {"cpu_features": ["avx2"]}) for item in a_run("1", 2.5)]
    zen_4 = [
        replace(item, machine=item.machine | {"cpu_features": ["avx2", "avx512f", "avx512_vnni", "avx512_bf16"]})
        for item in a_run("2", 1.25)
    ]
    for name, records in (("zen3", zen_3), ("zen4", zen_4)):
        for item in records:
            item.append(tmp_path / f"{name}.jsonl")

    report = summary(reported_runs([*zen_3, *zen_4]))
    command = [sys.executable, "-m", "benchmarks", "check", tmp_path / "zen4.jsonl", tmp_path / "zen3.jsonl"]
    compared = subprocess.run(command, capture_output=True, text=True, check=False)

    wide, narrow = report.split("AVX2:")
    assert wide.startswith("AVX-512, BF16, VNNI:")
    assert ("80 (" in wide, "40 (" in wide) == (True, False)
    assert ("40 (" in narrow, "80 (" in narrow) == (True, False)
    assert compared.stdout == (
        "there are no two runs of one workload on one kind of CPU to compare; run: python -m benchmarks run\n"
    )


def test_charts_are_the_same_whenever_they_are_drawn(tmp_path: Path) -> None:
    growth = [record(f"{files} files, no inference", [1.0] * 5, workload=GROWTH) for files in ("1,000", "10,000")]
    charts = []
    for name in ("once", "again"):
        (tmp_path / name).mkdir()
        draw({"w": a_run("r", 1.25), GROWTH: growth}, tmp_path / name, "avx2")
        charts.append({path.name: path.read_text() for path in (tmp_path / name).iterdir()})
    assert charts[0].keys() == {"speed-avx2.svg", "growth-avx2.svg"}
    assert charts[0] == charts[1]
    assert "batchcls, bfloat16" in charts[0]["speed-avx2.svg"]


def test_an_unknown_case_is_refused_with_those_that_there_are() -> None:
    command = [sys.executable, "-m", "benchmarks", "run", "--case", "end-to-middle"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "'end-to-middle'" in done.stderr
    assert "engine-only int8" in done.stderr


def test_committed_records_say_what_was_measured_where() -> None:
    for item in committed_records():
        assert item.machine["cpu"], item.case
        assert item.commit, item.case
        assert item.images_per_s > 0
    assert all(json.loads(line) for path in RESULTS.glob("*.jsonl") for line in path.read_text().splitlines())
