"""Labels of the truth that may be wrong: flipped ones are listed, and what cannot be judged is said to be so."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchcls.evaluation.label_issues import judge_labels
from batchcls.evaluation.labeled_predictions import LabeledPredictions
from tests.conftest import draw
from tests.evaluation.test_evaluate import LABELS, Row, evaluate, metrics_of, predictions_file, truth_csv

CLASSES = 4


def predictions_of(truth: np.ndarray, probabilities: np.ndarray) -> LabeledPredictions:
    return LabeledPredictions(
        truth.astype(np.int32),
        probabilities.argmax(axis=1).astype(np.int32),
        probabilities.astype(np.float32),
        np.arange(len(truth)),
    )


def confident(classes: np.ndarray, seed: int = 0, count: int = CLASSES) -> np.ndarray:
    """Probabilities of an engine that is right about every image, more or less surely."""
    logits = np.random.default_rng(seed).normal(size=(len(classes), count))
    logits[np.arange(len(classes)), classes] += 6
    return np.asarray(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))


def test_most_flipped_labels_are_listed_and_hardly_another() -> None:
    right = np.arange(2000) % CLASSES
    flipped = np.random.default_rng(1).random(2000) < 0.03
    images = predictions_of((right + flipped) % CLASSES, confident(right))

    issues = judge_labels(images)

    hits = flipped[issues.rows].sum()
    assert hits > 0.8 * flipped.sum()
    assert hits > 0.9 * len(issues.rows)
    assert (np.diff(issues.scores) >= 0).all()
    assert sum(issues.by_class) == len(issues.rows)
    assert issues.why is None


@given(st.integers(20, 60), st.integers(0, 2**16), st.integers(2, 6))
def test_whatever_is_listed_is_misclassified_and_stands_once(images: int, seed: int, classes: int) -> None:
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.full(classes, 0.3), images)
    judged = predictions_of(random.integers(0, classes, images), probabilities)

    issues = judge_labels(judged)

    assert not judged.correct[issues.rows].any()
    assert len(set(issues.rows.tolist())) == len(issues.rows)
    assert issues.why is None or (len(np.unique(judged.truth)) == 1 and not len(issues.rows))


@pytest.mark.parametrize(
    ("truth", "reason"),
    [
        (np.zeros(50, int), "one class"),
        (np.array([0, 1]), "fewer than 20 images"),
    ],
)
def test_too_little_to_judge_by_is_said(truth: np.ndarray, reason: str) -> None:
    issues = judge_labels(predictions_of(truth, confident(truth)))

    assert reason in str(issues.why)
    assert len(issues.rows) == 0


def test_probabilities_that_are_no_numbers_are_said() -> None:
    truth = np.arange(40) % CLASSES
    probabilities = confident(truth)
    probabilities[3] = np.nan

    assert judge_labels(predictions_of(truth, probabilities)).why == "some probabilities are no numbers"


def test_classes_without_images_and_of_one_image_break_nothing() -> None:
    truth = np.array([*np.arange(60) % 2, 3])
    probabilities = confident(truth)
    probabilities[7] = [0.9999, 1e-4, 0, 0]  # surer than of any other image

    issues = judge_labels(predictions_of(truth, probabilities))

    assert issues.rows.tolist() == [7]
    assert issues.by_class == (0, 1, 0, 0)


def test_probabilities_of_a_little_more_than_one_are_judged() -> None:
    truth = np.arange(40) % 2
    probabilities = np.zeros((40, 2))
    probabilities[np.arange(40), truth] = 1.0005  # as another precision rounds 1

    assert judge_labels(predictions_of(truth, probabilities)).why is None


@pytest.fixture
def flipped(tmp_path: Path) -> tuple[Path, Path]:
    """Predictions of 60 images, all right, and a truth of which the label of one is wrong."""
    slides = tmp_path / "slides"
    rows: list[Row] = []
    for number in range(60):
        draw(slides / f"{number:02d}.png", seed=number)
        rows.append((f"{number:02d}.png", LABELS[number % 3], 0.9 + number / 1000))
    truth = [(name, str(label)) for name, label, _ in rows]
    truth[58] = ("58.png", "a")  # the engine is surer of no other image of b
    return predictions_file(tmp_path / "p.parquet", rows, roots=str(slides)), truth_csv(tmp_path / "t.csv", truth)


def test_the_report_lists_and_shows_them(flipped: tuple[Path, Path], tmp_path: Path) -> None:
    metrics = metrics_of(*flipped, tmp_path / "report")

    counts = [{"label": label, "candidates": int(label == "a")} for label in LABELS]
    assert metrics["label_issues"] == {"candidates": 1, "classes": counts, "why": None}
    with (tmp_path / "report" / "label_issues.csv").open() as stream:
        (row,) = csv.DictReader(stream)
    score = row.pop("score")
    assert row == {"path": "58.png", "given_label": "a", "likelier_label": "b"}
    assert float(score) == pytest.approx((1 - 0.958) / 2, abs=1e-6)
    assert (tmp_path / "report" / "label_issues.jpg").read_bytes().startswith(b"\xff\xd8")
    for name in ("report.html", "report.md"):
        text = (tmp_path / "report" / name).read_text()
        assert "1 of 60 labels may be wrong: candidates to look at, and no verdict" in text
        assert "trained on these labels" in text


def test_the_summary_says_how_many(flipped: tuple[Path, Path], tmp_path: Path) -> None:
    result = evaluate(*flipped, tmp_path / "report")

    assert "labels      1 may be wrong, candidates to look at in label_issues.csv" in result.stdout


def test_labels_that_were_not_judged_are_null(flipped: tuple[Path, Path], tmp_path: Path) -> None:
    truth = truth_csv(tmp_path / "two.csv", [("00.png", "a"), ("01.png", "b")])

    result = evaluate(flipped[0], truth, tmp_path / "report")

    assert "labels      not judged: there are fewer than 20 images" in result.stdout
    judged = json.loads((tmp_path / "report" / "metrics.json").read_text())["label_issues"]
    assert judged == {"candidates": None, "classes": None, "why": "there are fewer than 20 images"}
    assert (tmp_path / "report" / "label_issues.csv").read_text() == ('"path","given_label","likelier_label","score"\n')
    assert not (tmp_path / "report" / "label_issues.jpg").exists()
