"""The suite measures what it says, on a few images."""

import io
import json
import os
import re
import shutil
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

import batchcls
from batchcls.engine.backends.torch import TorchEngine
from batchcls.engine.backends.torch import open_engine as open_torch
from batchcls.engine.base import EngineOptions
from batchcls.engine.manifest import ONNX, Manifest
from benchmarks.cases import CASES, FILE_COST_CASES
from benchmarks.charts import draw
from benchmarks.check import changes
from benchmarks.comparison import committed_comparisons, comparison_table
from benchmarks.file_costs import measure_loop
from benchmarks.growth import scale_candidates, scale_table
from benchmarks.networks import unfused_googlenet
from benchmarks.processes import cpu_seconds
from benchmarks.record import RESULTS, Record
from benchmarks.report import (
    BEGIN_COMPARISONS,
    END_COMPARISONS,
    SPEED_PAGE,
    between_markers,
    full_tables,
    overview,
    table,
)
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
from benchmarks.sample import Task
from benchmarks.steps import steps_table
from benchmarks.suite import SuiteConfig, agreement, case_candidates, compared_candidates, reference_answers, run_suite
from benchmarks.workload import CROPS, FIELDS, LARGER_CROPS, Workload, draw_field, link_images
from tests.conftest import ALL4, ROOT

CROPS_64 = replace(CROPS, images=64)
AS_SOMEONE = ("-c", "user.name=someone", "-c", "user.email=someone@example.org")


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
    if "one core" in case:
        assert record.details["cores"] == 1
    if case in FILE_COST_CASES:
        assert record.images == (128 if "two processes" in case else 64)
        assert record.cpu_us_per_image > 0
    if case.startswith("end-to-end") and "no inference" not in case:
        assert record.images == 64
        assert record.top1_agreement is not None
        assert record.top1_agreement >= (0.9 if "int8" in case else 1.0)
        assert record.largest_difference is not None
        assert 0 < record.largest_difference < (0.5 if "int8" in case else 0.1)
    else:
        assert record.top1_agreement is None


def test_the_loop_alone_has_a_row_for_a_file_that_is_no_image(tmp_path: Path) -> None:
    folder = Workload("w", 64, 48, images=3).draw(tmp_path)
    (folder / "no image.jpg").write_text("text")

    assert measure_loop(Task(folder, ALL4, 0)).images == 4


def test_cpu_time_is_that_of_all_processes() -> None:
    busy = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\ninput()"
    since = cpu_seconds()
    with subprocess.Popen([sys.executable, "-c", busy], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        of_running_s = cpu_seconds() - since
        process.communicate(b"\n")
    assert min(of_running_s, cpu_seconds() - since) >= 0.25


def test_the_steps_of_a_file_add_up(tmp_path: Path) -> None:
    folder = replace(CROPS, images=8).draw(tmp_path)
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(steps_table(Task(folder, ALL4, 0), repeats=1))
    seconds = [float(line.split()[-3]) for line in console.export_text().splitlines() if "µs" in line]
    *steps, reading, rest, loop = seconds
    assert sum(steps) == pytest.approx(reading, abs=1)
    assert reading + rest == pytest.approx(loop, abs=1)


def test_the_larger_crops_are_links_to_files_of_22_kb(tmp_path: Path) -> None:
    files = list(replace(LARGER_CROPS, images=16, links=40).draw(tmp_path).iterdir())

    assert len(files) == 40
    assert 18_000 < sum(file.stat().st_size for file in files) / len(files) < 26_000


def test_a_comparison_measures_the_batchcls_of_both_checkouts(config: SuiteConfig, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "batchcls", tmp_path / "batchcls")
    version = tmp_path / "batchcls" / "__init__.py"
    version.write_text(re.sub(r"__version__ = .*", '__version__ = "before"', version.read_text()))
    for command in (["init", "--quiet"], ["add", "."], [*AS_SOMEONE, "commit", "--quiet", "--message", "before"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)

    records = run_suite(config, compared_candidates(config, tmp_path, ["loop-only"]), repeats=1)

    assert [record.details["batchcls"] for record in records] == ["before", batchcls.__version__]
    assert [record.images for record in records] == [64, 64]
    assert len({record.commit for record in records}) == 2


def test_what_is_no_checkout_is_not_compared(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "compare", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "git worktree add" in done.stderr


def test_a_comparison_shows_both_commits_case_by_case(tmp_path: Path) -> None:
    before, after = record("read-only", [2.0, 4.0, 2.0]), record("read-only", [1.0, 1.0, 1.0])
    sides = [
        replace(item, commit=commit, samples_cpu_s=(cpu_s,))
        for item, commit, cpu_s in ((before, "b4", 0.02), (after, "af", 0.005))
    ]
    for item in sides:
        item.append(tmp_path / "records.jsonl")

    lines = comparison_table(list(Record.read_all(tmp_path / "records.jsonl"))).splitlines()

    assert lines[0] == "w, medians of 3 turns (range), b4 -> af, on 2 cores of a CPU (AVX2), 2026-01-01."
    cells = [cell.strip() for cell in lines[4].strip("|").split("|")]
    assert cells == [
        "read-only, 100",
        "50 (25 to 50) -> 100 (100 to 100)",
        "2.00x (2.00 to 4.00)",
        "200 µs -> 50 µs",
        "1,024 -> 1,024 MiB",
    ]


def test_the_comparisons_on_the_page_are_the_committed_ones() -> None:
    page = SPEED_PAGE.read_text(encoding="utf-8")
    assert between_markers(page, BEGIN_COMPARISONS, END_COMPARISONS) == "\n\n".join(committed_comparisons())


def test_the_scale_says_how_much_memory_a_file_takes(config: SuiteConfig) -> None:
    (fewer,) = run_suite(config, list(scale_candidates(config, [80])), repeats=1)
    more = replace(fewer, images=160, peak_memory_bytes=fewer.peak_memory_bytes + 80 * 500)

    lines = scale_table([fewer, more]).splitlines()

    assert lines[2].startswith("| 80 files, the command without inference | 80 | ")
    assert lines[-1] == "From 80 to 160 rows: 0.50 KB of memory a file."


def test_agreement_is_over_the_files_that_both_answer() -> None:
    ours = {"a": [0.75, 0.25], "b": [0.25, 0.75], "c": None, "d": [1.0, 0.0]}
    theirs = {"a": [0.5, 0.5], "b": [0.75, 0.25], "c": [1.0, 0.0]}
    assert agreement(ours, theirs) == (0.5, 0.5)
    assert agreement({}, theirs) == (None, None)


def test_the_peers_network_is_the_engines() -> None:
    manifest = Manifest.read(ALL4)
    engine = open_torch(manifest, ALL4 / ONNX, EngineOptions(device="cpu", threads=2))
    assert isinstance(engine, TorchEngine)
    pixels = np.array(draw_field(np.random.default_rng(3), 224, 224))[None]
    mean, std = np.asarray(manifest.preprocess.mean), np.asarray(manifest.preprocess.std)
    images = torch.from_numpy(((pixels / 255 - mean) / std).transpose(0, 3, 1, 2)).float()
    with torch.inference_mode():
        logits = unfused_googlenet(ALL4, 4)(images).numpy()
    np.testing.assert_allclose(logits, engine.infer(pixels).logits, atol=1e-3)


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
        "80%",
        "100.00%, probabilities within 0.010",
    ]


def test_the_overview_shows_what_both_loops_were_measured_on() -> None:
    fields = [replace(item, workload=FIELDS.name) for item in a_run("1", 1.25)]
    alone = [replace(item, workload=CROPS.name) for item in a_run("1", 1.25)[:3]]

    lines = overview(reported_runs([*fields, *alone])).splitlines()

    assert lines[0] == "Medians of five turns, on 2 cores of this CPU: a CPU (AVX2)."
    assert [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[4:]] == [
        ["1024x768 JPEG", "80", "not measured", "4.00x", "1.60x", "80%", "100.00%"]
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

    report = full_tables(reported_runs([*zen_3, *zen_4]))
    command = [sys.executable, "-m", "benchmarks", "check", tmp_path / "zen4.jsonl", tmp_path / "zen3.jsonl"]
    compared = subprocess.run(command, capture_output=True, text=True, check=False)

    wide, narrow = report.split("### AVX2")
    assert wide.startswith("### AVX-512, BF16, VNNI")
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
