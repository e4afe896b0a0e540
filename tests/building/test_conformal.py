"""`batchcls build ENGINE --conformal`: an evaluation's thresholds get into the engine it is of, and into no other."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from batchcls import Engine
from batchcls.cli import main
from batchcls.engine.manifest import Manifest
from tests.conftest import draw

pytest.importorskip("crepes", reason="crepes, which fits the thresholds, is not installed")

Metrics = dict[str, Any]


def invoke(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    for number in range(60):
        draw(folder / f"{number:02}.png", number, (32, 32))
    return folder


@pytest.fixture(scope="module")
def report(tiny_engine: Path, slides: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The evaluation of the tiny engine, most of whose answers are right."""
    folder = tmp_path_factory.mktemp("report")
    predicted, truth = folder / "preds.parquet", folder / "truth.csv"
    assert invoke("run", slides, "--device", "cpu", "--engine", tiny_engine, "--out", predicted).exit_code == 0
    rows = pq.read_table(predicted, columns=["path", "label"]).to_pylist()
    with truth.open("w", newline="") as stream:
        csv.writer(stream).writerows(
            [("path", "label"), *((row["path"], "b" if n % 9 == 0 else row["label"]) for n, row in enumerate(rows))]
        )
    result = invoke("evaluate", predicted, "--truth", truth, "--out", folder / "report")
    assert result.exit_code == 0, result.output
    return folder / "report"


@pytest.fixture
def engine(tiny_engine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_engine, tmp_path / "engine"))


def test_an_engine_says_what_its_sets_promise(report: Path, engine: Path) -> None:
    result = invoke("build", engine, "--conformal", report / "metrics.json")

    assert result.exit_code == 0, result.output  # and no plan for a GPU is asked for
    assert result.stdout.startswith("sets      hold the true label of a share of 0.9 or 0.95")
    fitted = json.loads((report / "metrics.json").read_text())["conformal"]
    stored = json.loads(invoke("info", engine, "--json").stdout)["engine"]["conformal"]
    assert stored == {"levels": fitted["levels"], "images": fitted["images"]}
    few = [label for label, threshold in stored["levels"]["0.95"].items() if threshold is None]
    assert f"at 0.95, every set holds {', '.join(few)}: too few" in result.stdout


def test_a_new_network_promises_nothing(report: Path, engine: Path, tiny_onnx: Path) -> None:
    assert invoke("build", engine, "--conformal", report / "metrics.json").exit_code == 0

    result = invoke("build", tiny_onnx, "--labels", "a,b,c", "--out", engine, "--overwrite", "--device", "cpu")

    assert result.exit_code == 0, result.output
    assert Manifest.read(engine).conformal is None


def test_the_thresholds_of_a_folder_are_checked_when_it_is_opened(report: Path, engine: Path) -> None:
    assert invoke("build", engine, "--conformal", report / "metrics.json").exit_code == 0
    manifest = json.loads((engine / "engine.json").read_text())
    manifest["conformal"]["levels"]["0.9"]["a"] = 1.5
    (engine / "engine.json").write_text(json.dumps(manifest))

    result = invoke("info", engine)

    assert (result.exit_code, "conformal threshold at level 0.9" in result.stderr) == (1, True)


@pytest.mark.parametrize(("words", "level"), [((), "0.95"), (("--coverage", "0.9"), "0.9")])
def test_a_run_writes_the_sets_that_its_engine_promises(
    report: Path, engine: Path, slides: Path, tmp_path: Path, words: tuple[str, ...], level: str
) -> None:
    assert invoke("build", engine, "--conformal", report / "metrics.json").exit_code == 0
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    arguments = ("run", slides, tmp_path / "broken.jpg", "--device", "cpu", "--engine", engine, *words, "--out")

    result = invoke(*arguments, tmp_path / "preds.parquet")

    assert result.exit_code == 0, result.output
    table = pq.read_table(tmp_path / "preds.parquet")
    thresholds = json.loads((report / "metrics.json").read_text())["conformal"]["levels"][level]
    limits = np.array([2 if own is None else own for own in thresholds.values()])
    for row in table.to_pylist():
        expected = None
        if row["probabilities"] is not None:
            probabilities = np.array(row["probabilities"])
            best_first = np.argsort(-probabilities, kind="stable")
            expected = ["abc"[place] for place in best_first if 1 - probabilities[place] <= limits[place]]
        assert row["labels_set"] == expected
    record = json.loads(table.schema.metadata[b"batchcls"])
    sizes = [len(labels) for labels in table["labels_set"].drop_null().to_pylist()]
    assert (record["coverage"], len(sizes)) == (float(level), 60)
    counts = {"empty": sizes.count(0), "single": sizes.count(1), "void": 0, "labels": sum(sizes)}
    assert record["counts"]["sets"] == counts
    promise = f"\nsets      promised to hold the true label of {level} of each class: {sum(sizes) / 60:.2f} labels"
    assert promise in result.stdout
    assert invoke(*arguments, tmp_path / "preds.parquet").stdout.count(f"{counts['single']} of one label") == 1
    assert invoke(*arguments, tmp_path / "preds.jsonl").exit_code == 0
    lines = polars.read_ndjson(tmp_path / "preds.jsonl")
    assert lines["labels_set"].to_list() == table["labels_set"].to_pylist()


def test_sets_of_other_thresholds_get_into_a_file_of_their_own(
    report: Path, engine: Path, slides: Path, tmp_path: Path
) -> None:
    arguments = ("run", slides, "--device", "cpu", "--engine", engine, "--out", tmp_path / "preds.parquet")
    for change in (0.0, 0.25):
        metrics = json.loads((report / "metrics.json").read_text())
        metrics["conformal"]["levels"]["0.95"]["a"] = change
        (tmp_path / "metrics.json").write_text(json.dumps(metrics))
        assert invoke("build", engine, "--conformal", tmp_path / "metrics.json").exit_code == 0
        result = invoke(*arguments)

    assert (result.exit_code, "set_thresholds" in result.stderr, "--overwrite" in result.stderr) == (1, True, True)


def test_a_coverage_that_is_not_promised_is_refused(
    report: Path, engine: Path, tiny_engine: Path, slides: Path, tmp_path: Path
) -> None:
    assert invoke("build", engine, "--conformal", report / "metrics.json").exit_code == 0

    for folder, coverage, reason in ((engine, "0.8", "promises 0.9 and 0.95"), (tiny_engine, "0.9", "promises none")):
        out = tmp_path / "preds.parquet"
        result = invoke("run", slides, "--device", "cpu", "--engine", folder, "--coverage", coverage, "--out", out)
        assert (result.exit_code, reason in result.stderr, out.exists()) == (1, True, False)


def test_an_open_engine_gives_sets_too(report: Path, engine: Path, slides: Path) -> None:
    assert invoke("build", engine, "--conformal", report / "metrics.json").exit_code == 0
    with Engine.load(engine, device="cpu", coverage=0.9) as opened:
        rows = opened.predict(sorted(slides.iterdir())[:5])
    assert rows["labels_set"].null_count == 0


def _record(metrics: Metrics) -> Metrics:
    record: Metrics = metrics["predictions"]["metadata"]
    return record


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda metrics: _record(metrics)["engine"].update(onnx_sha256="0" * 64), "SHA-256 000000000000"),
        (lambda metrics: _record(metrics)["engine"].update(temperature=2.0), "temperature of 2.0"),
        (lambda metrics: _record(metrics)["engine"].update(temperature="1"), "temperature of 1"),
        (lambda metrics: _record(metrics)["labels"].reverse(), "another order"),
        (lambda metrics: metrics["predictions"].update(metadata={}), "no longer say"),
        (lambda metrics: metrics.pop("conformal"), "older batchcls"),
        (lambda metrics: metrics.update(conformal=None), "one class"),
        (lambda metrics: metrics.update(conformal=[1]), "1 to 16 levels"),
        (lambda metrics: metrics["conformal"]["levels"]["0.9"].update(a=-1), "neither null nor a number"),
        (lambda metrics: metrics.update(predictions=None), "no metrics.json"),
    ],
)
def test_metrics_of_anything_else_are_refused(
    report: Path, engine: Path, tmp_path: Path, change: Callable[[Metrics], None], reason: str
) -> None:
    metrics = json.loads((report / "metrics.json").read_text())
    change(metrics)
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    before = (engine / "engine.json").read_bytes()

    result = invoke("build", engine, "--conformal", tmp_path / "metrics.json")

    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert reason in result.stderr
    assert (engine / "engine.json").read_bytes() == before


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"predictions": NaN}', "\x00\xff"])
def test_files_that_are_no_metrics_are_refused(engine: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "metrics.json").write_text(text)

    result = invoke("build", engine, "--conformal", tmp_path / "metrics.json")

    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert "gives engine" in result.stderr


def test_a_file_too_large_for_metrics_is_never_read(engine: Path, tmp_path: Path) -> None:
    with (tmp_path / "metrics.json").open("wb") as stream:
        stream.truncate(1 << 40)

    result = invoke("build", engine, "--conformal", tmp_path / "metrics.json")

    assert (result.exit_code, "at most" in result.stderr) == (1, True)


def test_thresholds_are_for_an_engine_that_exists(report: Path, tiny_onnx: Path, tmp_path: Path) -> None:
    result = invoke("build", tiny_onnx, "--out", tmp_path / "new", "--conformal", report / "metrics.json")

    assert (result.exit_code, "build, run and evaluate it first" in result.stderr) == (2, True)
    assert "holds no engine.json" in invoke("build", tmp_path, "--conformal", report / "metrics.json").stderr
