"""`batchcls evaluate` of predictions that say which images are novel."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import binomtest

from batchcls.evaluation.novelty_accuracy import accuracy_by_novelty
from batchcls.predictions.reader import PredictionsFile
from tests.evaluation.novel_predictions import novel_predictions, with_novelty
from tests.evaluation.predictions import labeled_predictions
from tests.evaluation.test_evaluate import evaluate, metrics_of, predictions_file, rows_and_truth, truth_csv


def wilson(right: int, images: int) -> dict[str, float | None]:
    interval = binomtest(right, images).proportion_ci(method="wilson")
    return {"value": right / images, "low": interval.low, "high": interval.high, "why": None}


def test_novel_and_familiar_images_are_measured_apart(tmp_path: Path) -> None:
    metrics = metrics_of(*novel_predictions(tmp_path), tmp_path / "report")

    assert metrics["novelty"] == {
        "familiar": {"images": 31, "accuracy": wilson(31, 31)},
        "novel": {"images": 8, "accuracy": wilson(0, 8)},
        "unjudged": 0,
        "share": 8 / 39,
    }
    assert metrics["conformal"]["images"] in (15, 16), "the sets of the novel images are void: half of 31, not of 39"
    with Image.open(tmp_path / "report" / "novel.jpg") as sheet:
        assert sheet.width > sheet.height > 100
    for name in ("report.html", "report.md"):
        text = (tmp_path / "report" / name).read_text()
        assert "20.5% of the images are novel" in text
        assert "0.0000 (0.0000 to 0.3244)" in text


def test_the_summary_warns_where_many_are_novel(tmp_path: Path) -> None:
    result = evaluate(*novel_predictions(tmp_path), tmp_path / "report")

    assert "novel       8 images, accuracy 0.0000 (0.0000 to 0.3244)" in result.stdout
    assert "familiar    31 images, accuracy 1.0000" in result.stdout
    assert "warning     20.5% of the images are novel" in result.stdout


def test_a_few_novel_images_are_no_warning(tmp_path: Path) -> None:
    result = evaluate(*novel_predictions(tmp_path, every=20), tmp_path / "report")

    assert "novel       2 images" in result.stdout
    assert "warning" not in result.stdout
    assert "are novel: unlike" not in (tmp_path / "report" / "report.html").read_text()


def test_predictions_without_it_are_evaluated_as_before(tmp_path: Path) -> None:
    rows, truth = rows_and_truth()
    predicted = predictions_file(tmp_path / "p.parquet", rows)

    result = evaluate(predicted, truth_csv(tmp_path / "t.csv", truth), tmp_path / "report")

    assert json.loads((tmp_path / "report" / "metrics.json").read_text())["novelty"] is None
    assert "novel" not in result.stdout
    assert "novel" not in (tmp_path / "report" / "report.md").read_text()
    assert "<h2>Novel" not in (tmp_path / "report" / "report.html").read_text()


def test_an_engine_that_judges_no_image_novel_is_said(tmp_path: Path) -> None:
    rows, truth = rows_and_truth()
    predicted = predictions_file(tmp_path / "p.parquet", rows)
    with_novelty(predicted, [0.5] * 120, [None] * 120)

    metrics = metrics_of(predicted, truth_csv(tmp_path / "t.csv", truth), tmp_path / "report")

    nothing = {"images": 0, "accuracy": {"value": None, "low": None, "high": None, "why": "no image"}}
    assert metrics["novelty"] == {"familiar": nothing, "novel": nothing, "unjudged": 120, "share": None}
    said = "Of 120 images the predictions do not say whether they are novel."
    assert said in (tmp_path / "report" / "report.md").read_text()


def test_the_most_novel_stand_first_and_of_equally_novel_ones_the_surest(tmp_path: Path) -> None:
    path = with_novelty(
        predictions_file(tmp_path / "p.parquet", rows_and_truth(4)[0]), [0.5, 1, None, 1], [False, True, None, True]
    )
    answers = labeled_predictions([0, 1, 0, 1], [0, 1, 1, 1], [[0.9, 0.1], [0.3, 0.7], [0, 1], [0.2, 0.8]])

    result = accuracy_by_novelty(PredictionsFile.read(path, optional=("novelty", "novel")), answers)

    assert result is not None
    assert result.most_novel.tolist() == [3, 1, 0]
    assert result.unjudged == 1


def test_images_of_groups_have_no_interval(tmp_path: Path) -> None:
    path = with_novelty(predictions_file(tmp_path / "p.parquet", rows_and_truth(4)[0]), [0.5] * 4, [False] * 4)
    answers = labeled_predictions([0, 1, 0, 1], [0, 1, 1, 1], np.full((4, 2), 0.5), groups=[0, 0, 1, 1])

    result = accuracy_by_novelty(PredictionsFile.read(path, optional=("novelty", "novel")), answers)

    assert result is not None
    assert result.familiar.accuracy.value == pytest.approx(0.75)
    assert result.familiar.accuracy.low is None
    assert "one group" in str(result.familiar.accuracy.why)
