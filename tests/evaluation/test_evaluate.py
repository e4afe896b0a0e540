"""`batchcls evaluate` as users meet it: what it matches, what it refuses, what it counts, and what it leaves."""

import csv
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from scipy.stats import binomtest

from batchcls.cli import main
from batchcls.predictions.schema import file_schema
from tests.commandline import PATIENCE_S, invoked
from tests.conftest import draw

LABELS = ("a", "b", "c")
FILES = {
    "metrics.json",
    "report.md",
    "report.html",
    "confusion.png",
    "calibration.png",
    "risk_coverage.png",
    "wrong.csv",
    "label_issues.csv",
}
SHEETS = {"wrong.jpg", "uncertain.jpg"}

Row = tuple[str, str | None, float]
"""A path, its label or None for a file that is corrupt, and the label's probability."""


def predictions_file(
    path: Path,
    rows: Sequence[Row],
    *,
    roots: Sequence[str] | str = "/slides",
    labels: Sequence[str] = LABELS,
    engine: Mapping[str, Any] | None = None,
) -> Path:
    """A predictions file of these rows."""
    known = {label: code for code, label in enumerate(labels)}
    probabilities = np.zeros((len(rows), len(labels)), np.float32)
    for row, (_, label, probability) in enumerate(rows):
        probabilities[row] = (1 - probability) / max(len(labels) - 1, 1)
        probabilities[row, known.get(label or "", 0)] = probability
    columns = {
        "root": [roots] * len(rows) if isinstance(roots, str) else list(roots),
        "path": [name for name, _, _ in rows],
        "label": [label for _, label, _ in rows],
        "probability": [probability if label else None for _, label, probability in rows],
        "probabilities": [list(map(float, row)) for row in probabilities],
        "size_bytes": [len(name) << 33 if label else None for name, label, _ in rows],
        "modified": [datetime(2026, 11, 26, 4, 5, 6, 789012, UTC) if label else None for _, label, _ in rows],
        "error": [None if label else "corrupt: cut short" for _, label, _ in rows],
    }
    kind = file_schema(len(labels))
    arrays = [pa.array(columns.get(field.name, [None] * len(rows)), field.type) for field in kind]
    metadata = {"labels": list(labels), "engine": {"name": "tiny", **(engine or {})}}
    pq.write_table(pa.table(arrays, schema=kind.with_metadata({"batchcls": json.dumps(metadata)})), path)
    return path


def truth_csv(path: Path, rows: Sequence[Sequence[str]], columns: Sequence[str] = ("path", "label")) -> Path:
    """A CSV file of labels."""
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([columns, *rows])
    return path


def evaluate(predicted: Path, truth: Path, out: Path, *more: str | Path) -> Result:
    return CliRunner().invoke(main, ["evaluate", *map(str, (predicted, "--truth", truth, "--out", out, *more))])


def metrics_of(predicted: Path, truth: Path, out: Path, *more: str | Path) -> dict[str, Any]:
    """What metrics.json says of an evaluation that ended well."""
    result = evaluate(predicted, truth, out, *more)
    assert result.exit_code == 0, result.output
    metrics: dict[str, Any] = json.loads((out / "metrics.json").read_text(), parse_constant=pytest.fail)
    return metrics


def file_contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.glob("*")}


def refusal(predicted: Path, truth: Path, out: Path, *more: str | Path) -> str:
    """The one line of an evaluation that was refused; ``out`` is as it was."""
    before = file_contents(out)
    result = evaluate(predicted, truth, out, *more)
    assert result.exit_code == 1, result.output
    assert file_contents(out) == before
    assert result.stderr.count("\n") == 1
    return result.stderr


def rows_and_truth(count: int = 120, wrong_each: int = 7, prefix: str = "") -> tuple[list[Row], list[tuple[str, str]]]:
    """Predictions and truth, of which every seventh or so differ."""
    names = [f"{prefix}{number:04d}.jpg" for number in range(count)]
    truth = [(name, LABELS[number % 3]) for number, name in enumerate(names)]
    said = [LABELS[(number + (number % wrong_each == 0)) % 3] for number in range(count)]
    rows = [
        (name, label, 0.5 + number % 50 / 100) for number, (name, label) in enumerate(zip(names, said, strict=True))
    ]
    return rows, truth


@pytest.fixture
def plain(tmp_path: Path) -> tuple[Path, Path]:
    rows, truth = rows_and_truth()
    return predictions_file(tmp_path / "p.parquet", rows), truth_csv(tmp_path / "t.csv", truth)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, tiny_engine: Path) -> tuple[Path, Path, Path]:
    """Class folders of drawn images, one of them no image, as classified; and the evaluation."""
    base = tmp_path_factory.mktemp("real")
    for seed in range(30):
        draw(base / "slides" / LABELS[seed % 3] / f"{seed}.jpg", seed)
    (base / "slides" / "a" / "broken.jpg").write_text("no image")
    assert invoked(base / "slides", "--out", base / "p.parquet", "--engine", tiny_engine).exit_code == 0
    result = evaluate(base / "p.parquet", base / "slides", base / "report")
    assert result.exit_code == 0, result.output
    return base / "slides", base / "p.parquet", base / "report"


def test_a_run_beside_its_class_folders_becomes_a_whole_report(real: tuple[Path, Path, Path]) -> None:
    _, predicted, report = real
    rows = [row for row in pq.read_table(predicted).to_pylist() if row["label"]]
    wrong = {row["path"] for row in rows if row["label"] != row["path"].split("/")[0]}

    metrics = json.loads((report / "metrics.json").read_text(), parse_constant=pytest.fail)

    assert {path.name for path in report.iterdir()} - {"label_issues.jpg"} == FILES | SHEETS
    assert metrics["overall"]["accuracy"]["value"] == pytest.approx(1 - len(wrong) / 30)
    assert metrics["accuracy_with_unreadable_as_wrong"] == pytest.approx((30 - len(wrong)) / 31)
    assert metrics["matched"]["unreadable"] == {"not an image": 1}
    assert np.sum(metrics["confusion"]["counts"]) == 30
    with (report / "wrong.csv").open() as stream:
        listed = list(csv.DictReader(stream))
    assert {row["path"] for row in listed} == wrong
    sure = [float(row["probability"]) for row in listed]
    assert sure == sorted(sure, reverse=True)
    for name in SHEETS | {"confusion.png", "calibration.png", "risk_coverage.png"}:
        with Image.open(report / name) as image:
            assert min(image.size) > 100


def test_the_summary_names_what_was_found(real: tuple[Path, Path, Path]) -> None:
    slides, predicted, report = real

    printed = evaluate(predicted, slides, report, "--overwrite").stdout

    for promised in (
        r"^30 images judged, 1 unreadable -> .*report\.html$",
        r"^matched +by path; 0 labelled without prediction, 0 predicted without label$",
        r"^accuracy +0\.\d{4} \(0\.\d{4} to \d\.\d{4}\)$",
        r"^macro F1 +0\.\d{4} \(0\.\d{4} to \d\.\d{4}\)$",
        r"^calibration error 0\.\d{4}; ",
        r"^threshold ",
    ):
        assert re.search(promised, printed, re.MULTILINE), promised


def test_the_page_loads_nothing_from_elsewhere(real: tuple[Path, Path, Path]) -> None:
    page = (real[2] / "report.html").read_text()

    addresses = re.findall(r"(?:src|href)=\"([^\"]*)\"", page)
    assert len(addresses) == len([*real[2].glob("*.png"), *real[2].glob("*.jpg")])
    assert all(address.startswith("data:image/") for address in addresses)


def test_an_earlier_evaluation_is_replaced_if_asked_and_other_files_stay(
    real: tuple[Path, Path, Path], plain: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "report"
    metrics_of(real[1], real[0], out)
    (out / "notes.txt").write_text("mine")

    assert "exists; choose another --out, or replace it with --overwrite" in refusal(*plain, out)
    metrics_of(*plain, out, "--overwrite")

    assert {path.name for path in out.iterdir()} == FILES | {"notes.txt"}
    assert "No contact sheet was made" in (out / "report.html").read_text()
    assert (out / "notes.txt").read_text() == "mine"


def test_what_it_was_given_is_never_replaced(plain: tuple[Path, Path], tmp_path: Path) -> None:
    predicted, truth = plain
    assert "wrong.csv' itself" in refusal(predicted, truth.rename(tmp_path / "wrong.csv"), tmp_path, "--overwrite")
    (tmp_path / "wrong.csv").rename(truth)
    assert "report.md' itself" in refusal(predicted.rename(tmp_path / "report.md"), truth, tmp_path, "--overwrite")


def test_an_evaluation_that_fails_leaves_no_folder(plain: tuple[Path, Path], tmp_path: Path) -> None:
    refusal(plain[0], truth_csv(tmp_path / "other.csv", [("a.jpg", "no such label")]), tmp_path / "report")

    assert not (tmp_path / "report").exists()


def test_the_same_command_leaves_the_same_bytes(plain: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = ({path.name: path.read_bytes() for path in _made(plain, tmp_path / name)} for name in ("1", "2"))

    assert first == second


def _made(plain: tuple[Path, Path], out: Path) -> list[Path]:
    metrics_of(*plain, out)
    return list(out.iterdir())


def test_the_file_says_what_it_is_of(plain: tuple[Path, Path], tmp_path: Path) -> None:
    metrics = metrics_of(*plain, tmp_path / "report", "--seed", "7")

    assert metrics["predictions"]["sha256"] == hashlib.sha256(plain[0].read_bytes()).hexdigest()
    assert metrics["predictions"]["metadata"]["engine"]["name"] == "tiny"
    assert metrics["seed"] == 7


def keys_of(value: Any) -> Any:
    """The keys of JSON, in order; of a list, those of its first item."""
    if isinstance(value, dict):
        return {key: keys_of(item) for key, item in value.items()}
    return [keys_of(value[0])] if isinstance(value, list) and value and isinstance(value[0], dict) else ...


def test_the_keys_of_metrics_json_stay_what_other_programs_read(plain: tuple[Path, Path], tmp_path: Path) -> None:
    estimate = dict.fromkeys(("value", "low", "high", "why"), ...)
    unmatched = {"count": ..., "examples": ...}
    bins = [dict.fromkeys(("from", "to", "images", "probability", "accuracy"), ...)]
    shares = ("images", "covered", "coverage", "low", "high", "mean_size", "empty", "single")
    of_classes = [dict.fromkeys(("label", "calibration_images", *shares), ...)]
    measured = {"overall": dict.fromkeys(shares, ...), "classes": of_classes}
    levels = ("0.9", "0.95")
    macro = [f"macro_{name}" for name in ("precision", "recall", "f1", "roc_auc", "pr_auc")]

    keys = keys_of(metrics_of(*plain, tmp_path / "report", "--error-rate", "0.5"))

    expected = {
        "batchcls": ...,
        "predictions": {
            **dict.fromkeys(("path", "sha256", "rows"), ...),
            "metadata": {"labels": ..., "engine": {"name": ...}},
            "notes": ...,
        },
        "truth": dict.fromkeys(
            ("path", "rows", "group_by", "split", "has_splits", "left_out", "unlabelled", "split_folders", "notes"), ...
        ),
        "seed": ...,
        "resamples": ...,
        "matched": {
            **dict.fromkeys(("by", "images", "readable"), ...),
            "unreadable": {},
            "truth_without_prediction": unmatched,
            "prediction_without_truth": unmatched,
            "two_files": ...,
        },
        "groups": ...,
        "accuracy_with_unreadable_as_wrong": ...,
        "overall": dict.fromkeys(("accuracy", "kappa", *macro, "balanced_accuracy"), estimate),
        "classes": [
            {
                **dict.fromkeys(("label", "images", "predicted"), ...),
                **dict.fromkeys(("precision", "recall", "f1", "roc_auc", "pr_auc"), estimate),
            }
        ],
        "classes_without_images": {"labels": ..., "macro_f1_of_all": ...},
        "confusion": {"labels": ..., "counts": ...},
        "calibration": {
            "bins": bins,
            **dict.fromkeys(("ece", "brier", "nll"), ...),
            "temperature": {
                **dict.fromkeys(("fitted", "ece", "nll"), ...),
                "bins": bins,
                **dict.fromkeys(("why", "gains", "give"), ...),
            },
        },
        "risk_coverage": {
            **dict.fromkeys(("aurc", "coverage", "error_rate", "probability", "wanted_error_rate"), ...),
            "threshold": dict.fromkeys(
                (
                    *("probability", "accepted", "coverage", "to_a_human"),
                    *("errors", "error_rate", "error_rate_at_most"),
                ),
                ...,
            ),
        },
        "label_issues": {"candidates": ..., "classes": [{"label": ..., "candidates": ...}], "why": ...},
        "novelty": ...,
        "conformal": {
            "levels": dict.fromkeys(levels, dict.fromkeys(LABELS, ...)),
            **dict.fromkeys(("images", "test_images"), ...),
            "measured": dict.fromkeys(levels, measured),
        },
        "advice": {"temperature": ..., "threshold": ...},
        "notes": ...,
    }
    assert keys == expected
    assert repr(keys) == repr(expected)  # in this order


@pytest.mark.parametrize(
    ("written", "root", "by"),
    [
        ("{}", "/slides", "path"),
        ("{here}/slides/{}", "{here}/slides", "absolute path"),
        ("./slides//x/../{}", "{here}/slides", "absolute path"),
        ("slides/{}", "slides", "absolute path"),
        ("elsewhere/{}", "/slides", "file name"),
    ],
)
def test_images_are_matched_by_path_then_absolute_path_then_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str, root: str, by: str
) -> None:
    monkeypatch.chdir(tmp_path)
    rows, truth = rows_and_truth()
    predicted = predictions_file(tmp_path / "p.parquet", rows, roots=root.format(here=tmp_path))
    named = [(written.format(name, here=tmp_path), label) for name, label in truth]

    metrics = metrics_of(predicted, truth_csv(tmp_path / "t.csv", named), tmp_path / "report")

    assert metrics["matched"]["by"] == by
    assert metrics["matched"]["images"] == 120
    assert metrics["overall"]["accuracy"]["value"] == pytest.approx(1 - 18 / 120)
    assert any("by file name alone" in note for note in metrics["notes"]) == (by == "file name")


def test_images_are_found_by_way_of_links_and_from_elsewhere_only_if_paths_are_absolute(
    real: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_engine: Path
) -> None:
    (tmp_path / "link").symlink_to(real[0])
    (tmp_path / "below").mkdir()
    named = [(f"link/{path.relative_to(real[0])}", path.parent.name) for path in sorted(real[0].glob("*/*.jpg"))]
    truth = truth_csv(tmp_path / "t.csv", named)

    assert metrics_of(real[1], truth, tmp_path / "report")["matched"]["by"] == "absolute path"

    monkeypatch.chdir(tmp_path / "below")
    for name in ("one", "other"):
        shutil.copytree(real[0], tmp_path / name)
    ran = invoked("../one", "../other", "--out", "p.parquet", "--engine", tiny_engine)
    assert ran.exit_code == 0, ran.output
    monkeypatch.chdir(tmp_path)
    said = refusal(tmp_path / "below" / "p.parquet", truth, tmp_path / "again")
    assert "evaluate in the folder that batchcls run was in: it was given '../one'" in said


def test_labels_of_other_images_than_those_classified_are_noted(real: tuple[Path, Path, Path], tmp_path: Path) -> None:
    shutil.copytree(real[0], tmp_path / "slides")
    assert not metrics_of(real[1], tmp_path / "slides", tmp_path / "same")["matched"]["two_files"]
    for number, path in enumerate(sorted((tmp_path / "slides").glob("*/*.jpg"))):
        draw(path, 100 + number)

    metrics = metrics_of(real[1], tmp_path / "slides", tmp_path / "others")

    assert any("Labelled and classified images are two" in note for note in metrics["notes"])


def test_one_path_below_two_roots_is_told_apart_by_absolute_path(tmp_path: Path) -> None:
    rows: list[Row] = [("0.jpg", "a", 0.9), ("0.jpg", "b", 0.8)]
    predicted = predictions_file(tmp_path / "p.parquet", rows, roots=["/one", "/two"])
    named = [("/two/0.jpg", "b"), ("/one/0.jpg", "a")]

    metrics = metrics_of(predicted, truth_csv(tmp_path / "t.csv", named), tmp_path / "report")
    error = refusal(predicted, truth_csv(tmp_path / "u.csv", [("0.jpg", "a")]), tmp_path / "none")

    assert metrics["overall"]["accuracy"]["value"] == 1
    assert "more than one row by path" in error
    assert "'0.jpg'" in error


def test_a_name_that_stands_twice_is_no_match(tmp_path: Path) -> None:
    predicted = predictions_file(
        tmp_path / "p.parquet", [("x/0.jpg", "a", 0.9), ("y/0.jpg", "b", 0.8), ("y/1.jpg", "b", 0.8)]
    )

    error = refusal(predicted, truth_csv(tmp_path / "t.csv", [("z/0.jpg", "a"), ("z/1.jpg", "b")]), tmp_path / "report")

    assert "by file name" in error


def test_what_has_no_partner_and_what_is_unreadable_is_counted(tmp_path: Path) -> None:
    rows, truth = rows_and_truth()
    rows[:4] = [(name, None, 0.0) for name, _, _ in rows[:4]]
    more: list[Row] = [(f"unlabelled{number}.jpg", "a", 0.9) for number in range(5)]
    predicted = predictions_file(tmp_path / "p.parquet", [*rows, *more])
    truth += [(f"unseen{number}.jpg", "a") for number in range(6)]

    metrics = metrics_of(predicted, truth_csv(tmp_path / "t.csv", truth), tmp_path / "report")

    match = metrics["matched"]
    assert (match["images"], match["readable"], match["unreadable"]) == (120, 116, {"corrupt": 4})
    assert match["truth_without_prediction"] == {"count": 6, "examples": [f"unseen{number}.jpg" for number in range(3)]}
    assert match["prediction_without_truth"]["count"] == 5
    assert match["prediction_without_truth"]["examples"][0] == "/slides/unlabelled0.jpg"
    assert metrics["overall"]["accuracy"]["value"] == pytest.approx(99 / 116)  # number 0 was one of 18 that are wrong
    assert metrics["accuracy_with_unreadable_as_wrong"] == pytest.approx(99 / 120)
    for report in ("report.md", "report.html"):
        assert "corrupt 4" in (tmp_path / "report" / report).read_text()


def test_a_split_keeps_its_rows_alone(tmp_path: Path) -> None:
    rows, truth = rows_and_truth()
    parts = ["test", "train", "val", ""]
    table = [(*pair, f"p{number // 8}", parts[number % 4]) for number, pair in enumerate(truth)]
    predicted = predictions_file(tmp_path / "p.parquet", rows)
    named = truth_csv(tmp_path / "t.csv", table, ("path", "label", "group", "split"))

    test = metrics_of(predicted, named, tmp_path / "test", "--split", "test")
    whole = metrics_of(predicted, named, tmp_path / "whole")

    assert (test["matched"]["images"], test["truth"]["left_out"]) == (30, 90)
    assert (whole["matched"]["images"], whole["truth"]["left_out"]) == (90, 30)
    assert test["groups"] == 15
    assert any("may have been trained on" in note for note in whole["notes"])
    assert not any("may have been trained on" in note for note in test["notes"])


def test_groups_come_from_a_column_or_a_pattern(tmp_path: Path) -> None:
    rows, truth = rows_and_truth(prefix="p")
    predicted = predictions_file(tmp_path / "p.parquet", rows)
    table = [(*pair, pair[0][:4]) for pair in truth]
    named = truth_csv(tmp_path / "t.csv", table, ("path", "label", "patient"))

    by_column = metrics_of(predicted, named, tmp_path / "1", "--group-by", "patient")
    by_pattern = metrics_of(predicted, named, tmp_path / "2", "--group-by", r"^p\d{3}")
    alone = metrics_of(predicted, named, tmp_path / "3")

    assert by_column["groups"] == by_pattern["groups"] == 12
    assert by_column["overall"] == by_pattern["overall"]
    assert alone["groups"] is None
    assert any("--group-by" in note for note in alone["notes"])


def test_a_label_that_the_engine_has_not_is_refused(plain: tuple[Path, Path], tmp_path: Path) -> None:
    error = refusal(plain[0], truth_csv(tmp_path / "u.csv", [("0000.jpg", "blast")]), tmp_path / "report")

    assert "'blast'" in error
    assert "'a', 'b', 'c'" in error


def test_nothing_in_common_is_refused_with_examples_of_both(plain: tuple[Path, Path], tmp_path: Path) -> None:
    error = refusal(plain[0], truth_csv(tmp_path / "u.csv", [("x/y.jpg", "a")]), tmp_path / "report")

    for promised in ("'x/y.jpg'", "'/slides/0000.jpg'", "'/slides/0002.jpg'", "batchcls run"):
        assert promised in error


@pytest.mark.parametrize(
    ("content", "more", "promised"),
    [
        ("", (), "cannot be read as a table"),
        ("path,label\n", (), "no labeled image"),
        ("file,label\n0000.jpg,a\n", (), "no column 'path'"),
        ("path,label\n0000.jpg,\n", (), "without a label"),
        ("path,label\n0000.jpg,a\n0000.jpg,b\n", (), "more than once"),
        ("path,label\n0000.jpg,a\n", ("--split", "test"), "names no splits"),
        ("path,label,split\n0000.jpg,a,train\n", ("--split", "test"), "no image in --split test"),
        ("path,label\n0000.jpg,a\n", ("--group-by", "patient-(\\d+)"), "finds nothing"),
    ],
)
def test_a_truth_that_cannot_be_used_is_refused(
    plain: tuple[Path, Path], tmp_path: Path, content: str, more: tuple[str, ...], promised: str
) -> None:
    truth = tmp_path / "bad.csv"
    truth.write_text(content)

    assert promised in refusal(plain[0], truth, tmp_path / "report", *more)


def test_predictions_that_are_none_are_refused(plain: tuple[Path, Path], tmp_path: Path) -> None:
    text = tmp_path / "text.parquet"
    text.write_text("no parquet")
    strange = predictions_file(tmp_path / "strange.parquet", [("0000.jpg", "a", float("nan")), ("0001.jpg", "b", 0.4)])

    assert "is no predictions file" in refusal(text, plain[1], tmp_path / "1")
    assert "outside 0..1" in refusal(strange, plain[1], tmp_path / "2")


def test_an_empty_predictions_file_is_refused(plain: tuple[Path, Path], tmp_path: Path) -> None:
    empty = predictions_file(tmp_path / "empty.parquet", [])

    assert "predicted none" in refusal(empty, plain[1], tmp_path / "report")


def test_images_are_shown_from_below_the_truth_where_they_have_moved_there(tmp_path: Path) -> None:
    rows, truth = rows_and_truth(6)
    for seed, (name, _) in enumerate(truth):
        draw(tmp_path / name, seed)
    predicted = predictions_file(tmp_path / "p.parquet", rows, roots="/gone")

    metrics_of(predicted, truth_csv(tmp_path / "t.csv", truth), tmp_path / "report")

    assert {path.name for path in (tmp_path / "report").iterdir()} == FILES | SHEETS


def test_images_that_are_all_unreadable_are_refused(tmp_path: Path) -> None:
    predicted = predictions_file(tmp_path / "p.parquet", [("0.jpg", None, 0.0), ("1.jpg", None, 0.0)])

    error = refusal(predicted, truth_csv(tmp_path / "t.csv", [("0.jpg", "a"), ("1.jpg", "b")]), tmp_path / "report")

    assert "none of the 2 images" in error
    assert "corrupt" in error


def test_an_out_that_cannot_be_written_is_refused(plain: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    result = evaluate(*plain, tmp_path / "file" / "report")

    assert result.exit_code == 1
    assert "choose another --out" in result.stderr


def test_a_class_without_an_error_is_not_called_certain(tmp_path: Path) -> None:
    rows, truth = rows_and_truth()
    rows = [(name, "c" if said == "c" or dict(truth)[name] == "c" else said, sure) for name, said, sure in rows]

    metrics = metrics_of(
        predictions_file(tmp_path / "p.parquet", rows), truth_csv(tmp_path / "t.csv", truth), tmp_path / "report"
    )

    (certain,) = [each for each in metrics["classes"] if each["recall"]["value"] == 1]
    images = certain["images"]
    assert certain["label"] == "c"
    assert certain["recall"]["high"] == 1
    assert certain["recall"]["low"] == pytest.approx(binomtest(images, images).proportion_ci(method="wilson").low)


def test_few_errors_are_said_to_carry_little(plain: tuple[Path, Path], tmp_path: Path) -> None:
    rows, truth = rows_and_truth(300)
    more = predictions_file(tmp_path / "q.parquet", rows), truth_csv(tmp_path / "u.csv", truth)

    few, enough = metrics_of(*plain, tmp_path / "1"), metrics_of(*more, tmp_path / "2")

    assert any("Misclassified images: 18; " in note for note in few["notes"])
    assert not any("Misclassified images" in note for note in enough["notes"])


@pytest.mark.parametrize(
    ("rows", "truth", "labels"),
    [
        ([("0.jpg", "a", 0.9)], ["a"], LABELS),
        ([("0.jpg", "b", 0.9)], ["a"], LABELS),
        ([(f"{n}.jpg", "a", 0.9) for n in range(5)], ["a"] * 5, LABELS),
        ([(f"{n}.jpg", "a", 1.0) for n in range(5)], ["a", "a", "a", "a", "b"], LABELS),
        ([(f"{n}.jpg", "ab"[n % 2], 0.6) for n in range(9)], list("aaabbbbbc"), LABELS),
        ([(f"{n}.jpg", "a", 1.0) for n in range(5)], ["a"] * 5, ("a",)),
    ],
    ids=["one right", "one wrong", "one class", "certain", "a class with one image", "an engine of one class"],
)
def test_little_to_judge_by_is_said_and_breaks_nothing(
    tmp_path: Path, rows: list[Row], truth: list[str], labels: Sequence[str]
) -> None:
    predicted = predictions_file(tmp_path / "p.parquet", rows, labels=labels)
    named = truth_csv(tmp_path / "t.csv", [(row[0], label) for row, label in zip(rows, truth, strict=True)])

    metrics = metrics_of(predicted, named, tmp_path / "report")

    right = [row[1] == label for row, label in zip(rows, truth, strict=True)]
    assert metrics["overall"]["accuracy"]["value"] == pytest.approx(np.mean(right))
    for each in [metrics["overall"], *metrics["classes"]]:
        estimates = [value for value in each.values() if isinstance(value, dict)]
        assert estimates
        assert all(value["why"] for value in estimates if value["value"] is None or value["low"] is None)


def test_no_threshold_is_said(tmp_path: Path) -> None:
    predicted = predictions_file(tmp_path / "p.parquet", [("0.jpg", "a", 0.9), ("1.jpg", "a", 0.5)])
    named = truth_csv(tmp_path / "t.csv", [("0.jpg", "b"), ("1.jpg", "a")])

    result = evaluate(predicted, named, tmp_path / "report")

    assert "no threshold, for 1.00% errors at most" in result.stdout
    assert "No threshold" in (tmp_path / "report" / "report.md").read_text()


def test_the_temperature_to_give_goes_on_top_of_the_engines_own(tmp_path: Path) -> None:
    rows, truth = rows_and_truth(600)
    named = truth_csv(tmp_path / "t.csv", truth)
    plain = predictions_file(tmp_path / "p.parquet", rows)
    tempered = predictions_file(tmp_path / "q.parquet", rows, engine={"temperature": 2.0})

    first, second = (
        metrics_of(predicted, named, tmp_path / predicted.stem)["calibration"]["temperature"]
        for predicted in (plain, tempered)
    )

    assert first["give"] == first["fitted"] == second["fitted"]
    assert second["give"] == pytest.approx(2 * first["fitted"])
    for folder, temperature in (("p", first), ("q", second)):
        assert f"--temperature {temperature['give']:.4f}" in (tmp_path / folder / "report.md").read_text()


class _Tags(HTMLParser):
    """Every tag and attribute of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}


def test_hostile_names_are_text_and_nothing_else(tmp_path: Path) -> None:
    hostile = ["<script>alert(1)<", '" onerror="x', "$\\frac{1}$", "| a | b |", "日本\n語", "{{ 7 * 7 }}"]
    slides = tmp_path / "<img src=x onerror=alert(2)>"
    rows = [
        (f"{name.replace('/', '')}{number}.jpg", hostile[(number + 1) % 6], 0.6) for number, name in enumerate(hostile)
    ]
    for number, (name, _, _) in enumerate(rows):
        draw(slides / name, number)
    predicted = predictions_file(tmp_path / "p.parquet", rows, roots=str(slides), labels=hostile)
    truth = truth_csv(tmp_path / "t.csv", [(row[0], label) for row, label in zip(rows, hostile, strict=True)])
    with_more = truth.read_text() + '"<script>alert(3)</script>.jpg",<script>alert(1)<\n'
    truth.write_text(with_more)

    metrics_of(predicted, truth, tmp_path / "report")

    page = (tmp_path / "report" / "report.html").read_text()
    tags = _Tags(page)
    assert not {"script", "onerror"} & ({*tags.tags} | tags.attributes)
    assert tags.tags.count("img") == 5
    assert "&lt;script&gt;alert(3)&lt;/script&gt;" in page
    assert "{{ 7 * 7 }}" in page
    report = (tmp_path / "report" / "report.md").read_text()
    assert "<script>" not in report
    assert r"\| a \| b \|" in report
    with (tmp_path / "report" / "wrong.csv").open(newline="") as stream:
        assert {row["path"] for row in csv.DictReader(stream)} == {name for name, _, _ in rows}


def test_many_classes_are_drawn(tmp_path: Path) -> None:
    labels = [f"class {number}" for number in range(70)]
    rows = [(f"{number}.jpg", labels[number % 70], 0.7) for number in range(210)]
    predicted = predictions_file(tmp_path / "p.parquet", rows, labels=labels)

    metrics = metrics_of(predicted, truth_csv(tmp_path / "t.csv", [row[:2] for row in rows]), tmp_path / "report")

    assert len(metrics["classes"]) == 70


def test_a_missing_library_is_named_with_its_cure(plain: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "sklearn.py").write_text("raise ImportError('gone', name='sklearn')")
    command = [
        sys.executable,
        "-m",
        "batchcls",
        "evaluate",
        plain[0],
        "--truth",
        plain[1],
        "--out",
        tmp_path / "report",
    ]
    process = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )

    assert process.returncode == 1
    assert "needs sklearn, which is not installed; run: pip install 'batchcls[report]'" in process.stderr


def test_the_next_command_explains_the_errors_with_the_engine_at_hand(
    plain: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictions, truth = plain
    monkeypatch.chdir(tmp_path)

    unknown = evaluate(*plain, tmp_path / "report").stdout.splitlines()[-1]

    assert unknown == (
        f"next      batchcls explain ENGINE --from {predictions} --wrong 24 --truth {truth} "
        f"--out {tmp_path / 'explained'}"
    )
