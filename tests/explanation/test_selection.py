"""The images that are explained: evenly from folders, and from predictions the wrong or the uncertain ones."""

import shutil
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from batchcls.engine.manifest import sha256
from tests.commandline import invoked
from tests.explanation.commandline import explain, file_names, table
from tests.explanation.detector import detector, draw_squares


def test_of_more_images_than_the_limit_so_many_are_taken_evenly(checkpoint: Path, recipe: Path, tmp_path: Path) -> None:
    for number in range(10):
        draw_squares(tmp_path / "s" / f"{number}.png", (40, 40))

    result = explain(checkpoint, tmp_path / "s", "--recipe", recipe, "--limit", "3", "--out", tmp_path / "out")

    assert "3 explained" in result.stdout
    assert "7 images were left out" in result.stdout
    assert [Path(row["file"]).stem for row in table(tmp_path / "out")] == ["0", "3", "6"]


def test_the_most_confident_wrong_ones_are_chosen_from_predictions(
    engine: Path, checkpoint: Path, predicted: Path, labeled: Path, tmp_path: Path
) -> None:
    ways = ("--from", predicted, "--truth", labeled, "--wrong", "9")

    result = explain(engine, "--checkpoint", checkpoint, *ways, "--out", tmp_path / "out")

    assert result.exit_code == 0, result.output
    rows = table(tmp_path / "out")
    assert {Path(row["file"]).name for row in rows} == {"dim.jpg", "dim.png"}
    assert {(row["label"], row["truth"]) for row in rows} == {("nothing", "square")}


def test_predictions_that_another_program_wrote_again_are_explained_with_a_warning(
    engine: Path,
    checkpoint: Path,
    predicted: Path,
    labeled: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    rows = pd.read_parquet(predicted)
    rows[rows["label"] == "nothing"].to_parquet(tmp_path / "p.parquet")
    ways = ("--from", tmp_path / "p.parquet", "--truth", labeled, "--wrong", "9")

    result = explain(engine, "--checkpoint", checkpoint, *ways, "--out", tmp_path / "out")
    other = explain(checkpoint, "--labels", "nothing,square", *ways, "--out", tmp_path / "other")

    assert result.exit_code == 0, result.output
    assert {Path(row["file"]).name for row in table(tmp_path / "out")} == {"dim.jpg", "dim.png"}
    assert "warning: The predictions were written again by another program" in capfd.readouterr().err
    assert other.exit_code == 1
    assert "not in that of --labels: by its rows 'nothing' is number 2" in other.stderr


def test_folders_of_the_truth_that_are_no_classes_are_refused_or_named(
    engine: Path, checkpoint: Path, predicted: Path, labeled: Path, tmp_path: Path
) -> None:
    for view in ("Original", "Segmented"):
        shutil.copytree(labeled, tmp_path / "data" / view)
    ways = ("--checkpoint", checkpoint, "--from", predicted, "--truth", tmp_path / "data", "--wrong", "9")

    said = explain(engine, *ways, "--out", tmp_path / "out").stderr
    result = explain(engine, *ways, "--out", tmp_path / "out", "--split-folders", "test=Original")

    assert "'Original', 'Segmented', called like parts or views" in said
    assert result.exit_code == 0, result.output
    assert {row["truth"] for row in table(tmp_path / "out")} == {"square"}


def test_wrong_ones_come_by_confidence_and_match_a_table_by_absolute_path(
    engine: Path, checkpoint: Path, predicted: Path, labeled: Path, tmp_path: Path
) -> None:
    files = {f"{labeled}/square/one.png": "nothing", f"{labeled}/square/two.png": "nothing"}
    truth = tmp_path / "truth.csv"
    truth.write_text("path,label\n" + "".join(f"{path},{label}\n" for path, label in files.items()))
    ways = ("--from", predicted, "--truth", truth, "--wrong")

    both = explain(engine, "--checkpoint", checkpoint, *ways, "2", "--out", tmp_path / "both")
    one = explain(engine, "--checkpoint", checkpoint, *ways, "1", "--out", tmp_path / "one")

    assert (both.exit_code, one.exit_code) == (0, 0), both.output + one.output
    assert [Path(row["file"]).name for row in table(tmp_path / "both")] == ["two.png", "one.png"]
    assert [Path(row["file"]).name for row in table(tmp_path / "one")] == ["two.png"]


def test_a_csv_file_of_predictions_chooses_the_same_images(
    engine: Path, checkpoint: Path, predicted: Path, labeled: Path, tmp_path: Path
) -> None:
    as_csv = tmp_path / "p.csv"
    assert invoked(labeled, "--out", as_csv, "--engine", engine, "--backend", "openvino").exit_code == 0

    for predictions in (predicted, as_csv):
        out = tmp_path / predictions.suffix
        done = explain(engine, "--checkpoint", checkpoint, "--from", predictions, "--uncertain", "3", "--out", out)
        assert done.exit_code == 0, done.output
        next_command = f"batchcls report {predictions} --out {predictions.with_suffix('.html')}"
        assert done.stdout.splitlines()[-1] == f"next      {next_command}"

    assert table(tmp_path / ".csv") == table(tmp_path / ".parquet")


def test_the_least_certain_ones_are_chosen_and_those_that_are_gone_are_reported(
    engine: Path, checkpoint: Path, labeled: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(labeled, tmp_path / "slides")
    predictions = tmp_path / "p.parquet"
    assert invoked(folder, "--out", predictions, "--engine", engine, "--backend", "openvino").exit_code == 0
    rows = pq.read_table(predictions).to_pylist()
    readable = sorted((row for row in rows if row["label"]), key=lambda row: row["probability"])
    (folder / readable[0]["path"]).unlink()

    result = explain(
        engine, "--checkpoint", checkpoint, "--from", predictions, "--uncertain", "4", "--out", tmp_path / "out"
    )

    assert result.stdout.startswith("3 explained")
    assert "1 unreadable" in result.stdout
    assert f"{folder}/{readable[0]['path']}: missing" in capfd.readouterr().err
    listed = table(tmp_path / "out")
    assert [row["file"] for row in listed] == [f"{folder}/{row['path']}" for row in readable[:4]]
    assert listed[0]["note"].startswith("missing")
    for row, expected in zip(listed[1:], readable[1:], strict=False):
        assert row["label"] == expected["label"]
        assert float(row["probability"]) == pytest.approx(expected["probability"], abs=0.02)


def test_predictions_of_another_checkpoint_are_refused(predicted: Path, recipe: Path, tmp_path: Path) -> None:
    torch.save(detector(sure=10).state_dict(), tmp_path / "m.pth")

    result = explain(
        tmp_path / "m.pth", "--recipe", recipe, "--from", predicted, "--uncertain", "1", "--out", tmp_path / "out"
    )

    assert result.exit_code == 1
    assert "was predicted by a trained file with SHA-256" in result.stderr
    assert sha256(tmp_path / "m.pth") in result.stderr
    assert file_names(tmp_path) == {"m.pth"}


def test_labels_in_another_order_than_the_predictions_are_refused(
    checkpoint: Path, predicted: Path, tmp_path: Path
) -> None:
    ways = ("--from", predicted, "--uncertain", "1")

    result = explain(checkpoint, "--labels", "nothing,square", *ways, "--out", tmp_path / "out")

    assert result.exit_code == 1
    assert "has the labels ['square', 'nothing'], the model has ['nothing', 'square']" in result.stderr


def test_a_label_of_the_truth_that_the_model_does_not_know_is_refused(
    engine: Path, checkpoint: Path, predicted: Path, tmp_path: Path
) -> None:
    (tmp_path / "truth.csv").write_text("path,label\nsquare/one.png,circle\n")
    ways = ("--from", predicted, "--truth", tmp_path / "truth.csv", "--wrong", "1")

    result = explain(engine, "--checkpoint", checkpoint, *ways, "--out", tmp_path / "out")

    assert result.exit_code == 1
    assert "has labels ['circle'] that the model does not have; it has ['square', 'nothing']" in result.stderr
