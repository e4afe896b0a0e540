"""`batchcls evaluate` and `explain` on truth that other systems wrote, and on truth that is not whole."""

import csv
import re
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from sklearn.metrics import f1_score

from batchcls.evaluation.metrics import absent_classes, confusion_matrix
from batchcls.images.labels.labeled_images import LabeledImages
from batchcls.training.dataset import SplitDataset
from batchcls.training.options import SplitFractions, SplitOptions
from tests.commandline import invoked
from tests.conftest import ALL4, DATA, ROOT, draw
from tests.evaluation.test_evaluate import evaluate, metrics_of, predictions_file, refusal, rows_and_truth, truth_csv

CASES = DATA.parent / "cases" / "truth" / "slides"


@pytest.mark.skipif(not (DATA / "all4").is_dir() or not CASES.is_dir(), reason="needs all4 and the truth of its slides")
def test_the_figures_are_one_however_the_truth_was_written(tmp_path: Path) -> None:
    with (CASES / "plain.csv").open(newline="") as stream:
        names = [row["path"] for row in csv.DictReader(stream)]
    for name in names:
        (tmp_path / "slides" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(DATA / "all4" / name, tmp_path / "slides" / name)
    assert invoked(tmp_path / "slides", "--engine", ALL4, "--out", tmp_path / "p.parquet").exit_code == 0

    all_metrics = [
        metrics_of(tmp_path / "p.parquet", path, tmp_path / path.stem) for path in sorted(CASES.glob("*.csv"))
    ]

    assert len(all_metrics) == 3
    for metrics in all_metrics:
        assert metrics["matched"]["images"] == len(names)
        assert [metrics[key] for key in ("overall", "classes", "confusion")] == [
            all_metrics[0][key] for key in ("overall", "classes", "confusion")
        ]


@pytest.mark.parametrize(
    ("written", "by"),
    [
        ("slides\\{}", "path"),
        ("{nfd}", "path"),
        (" {} ", "path"),
        (".\\slides\\{}", "end of path"),
        ("C:\\data\\new\\slides\\{}", "end of path"),
        ("\\\\server\\share\\slides\\{}", "end of path"),
        ("/home/else/slides/{}", "end of path"),
        ("D:\\{}", "file name"),
    ],
)
def test_paths_of_other_systems_are_found(tmp_path: Path, written: str, by: str) -> None:
    names = [f"slides/é\u0327 {number}.jpg" for number in range(30)]
    names = [unicodedata.normalize("NFC", name) for name in names]
    rows = [(name, "abc"[number % 3], 0.9) for number, name in enumerate(names)]
    predicted = predictions_file(tmp_path / "p.parquet", rows, roots="/run")
    if written in ("{nfd}", " {} "):
        spelled = [written.format(name, nfd=unicodedata.normalize("NFD", name)) for name in names]
    else:
        spelled = [written.format(name.removeprefix("slides/")) for name in names]
    truth = truth_csv(tmp_path / "t.csv", [(name, row[1]) for name, row in zip(spelled, rows, strict=True)])

    metrics = metrics_of(predicted, truth, tmp_path / "report")

    assert (metrics["matched"]["images"], metrics["matched"]["by"]) == (30, by)
    assert metrics["overall"]["accuracy"]["value"] == 1
    assert any("ends of their paths" in note for note in metrics["notes"]) == (by == "end of path")


def test_one_name_in_several_folders_is_told_apart_by_the_end_of_the_path(tmp_path: Path) -> None:
    rows = [(f"{label}/{number}.jpg", label, 0.9) for label in "abc" for number in range(9)]
    predicted = predictions_file(tmp_path / "p.parquet", rows, roots="/new/slides")
    truth = truth_csv(tmp_path / "t.csv", [(f"E:\\old\\{name}".replace("/", "\\"), label) for name, label, _ in rows])

    metrics = metrics_of(predicted, truth, tmp_path / "report")

    assert metrics["matched"]["by"] == "end of path"
    assert metrics["overall"]["accuracy"]["value"] == 1


def test_names_that_differ_in_their_accents_alone_stay_apart(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "é.jpg") for form in ("NFC", "NFD"))
    predicted = predictions_file(tmp_path / "p.parquet", [(composed, "a", 0.9), (decomposed, "b", 0.9)])

    metrics = metrics_of(
        predicted, truth_csv(tmp_path / "t.csv", [(decomposed, "b"), (composed, "a")]), tmp_path / "report"
    )
    said = refusal(predicted, truth_csv(tmp_path / "u.csv", [(f"x\\{composed}", "a")]), tmp_path / "none")

    assert metrics["overall"]["accuracy"]["value"] == 1
    assert "more than one row by file name" in said


def test_a_backslash_in_a_name_is_no_folder_where_the_name_is_found_as_it_is(tmp_path: Path) -> None:
    rows = [("x\\1.jpg", "a", 0.9), ("x/1.jpg", "b", 0.9), ("2.jpg", "c", 0.9)]
    truth = truth_csv(tmp_path / "t.csv", [("x\\1.jpg", "a"), ("x/1.jpg", "b"), ("gone.jpg", "c")])

    metrics = metrics_of(predictions_file(tmp_path / "p.parquet", rows), truth, tmp_path / "report")

    assert (metrics["matched"]["images"], metrics["overall"]["accuracy"]["value"]) == (2, 1)


@pytest.mark.parametrize("engines", [("Pro ", "Me\u0301ta", " b"), ("Pro", "Méta", "b")])
def test_blanks_and_accents_of_labels_make_no_difference(tmp_path: Path, engines: tuple[str, ...]) -> None:
    rows = [(f"{number}.jpg", engines[number % 3], 0.9) for number in range(9)]
    predicted = predictions_file(tmp_path / "p.parquet", rows, labels=engines)
    words = ("Pro  ", "M\u00e9ta", "\u00a0b")
    table = truth_csv(tmp_path / "t.csv", [(f"{number}.jpg", words[number % 3]) for number in range(9)])
    for number in range(9):
        draw(tmp_path / "folders" / words[number % 3] / f"{number}.jpg", number)

    for truth in (table, tmp_path / "folders"):
        metrics = metrics_of(predicted, truth, tmp_path / truth.stem)

        assert metrics["confusion"]["labels"] == list(engines)
        assert metrics["overall"]["accuracy"]["value"] == 1


def test_what_windows_1252_was_read_as_is_said(tmp_path: Path) -> None:
    predicted = predictions_file(
        tmp_path / "p.parquet", [("1.jpg", "Métamyélocyte", 0.9)], labels=("Métamyélocyte", "b")
    )
    (tmp_path / "t.csv").write_bytes("path;label\r\n1.jpg;Métamyélocyte\r\n;\r\n".encode("cp1252"))

    result = evaluate(predicted, tmp_path / "t.csv", tmp_path / "report")

    assert result.exit_code == 0, result.output
    assert "note        " in result.stdout
    assert "read as Windows-1252" in result.stdout
    assert "read as Windows-1252" in (tmp_path / "report" / "report.md").read_text()


def test_folds_are_the_truth_part_by_part(tmp_path: Path) -> None:
    rows = [(f"fold_{number % 3}/{'ab'[number % 2]}/{number}.jpg", "a", 0.9) for number in range(30)]
    predicted = predictions_file(tmp_path / "p.parquet", rows, labels=("a", "b"))
    for name, _, _ in rows:
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).touch()
    parts = ("--split-folders", "train=fold_0,train=fold_1,test=fold_2")

    said = refusal(predicted, tmp_path / "data", tmp_path / "none")
    test = metrics_of(predicted, tmp_path / "data", tmp_path / "test", *parts, "--split", "test")
    whole = metrics_of(predicted, tmp_path / "data", tmp_path / "whole", *parts)

    assert "'fold_0', 'fold_1', 'fold_2', called like parts" in said
    assert (test["matched"]["images"], whole["matched"]["images"]) == (10, 30)
    assert test["truth"]["split_folders"] == parts[1]
    assert any("may have been trained on" in note for note in whole["notes"])


def test_predictions_are_not_their_own_truth(tmp_path: Path) -> None:
    predicted = predictions_file(tmp_path / "p.parquet", rows_and_truth()[0])

    assert "is the predictions file itself" in refusal(predicted, predicted, tmp_path / "report")


def test_a_class_without_images_is_named_beside_macro_f1(tmp_path: Path) -> None:
    truth = ["a"] * 6 + ["b"] * 6
    said = ["a"] * 5 + ["c"] + ["b"] * 5 + ["a"]
    rows = [(f"{number}.jpg", label, 0.9) for number, label in enumerate(said)]
    predicted = predictions_file(tmp_path / "p.parquet", rows, labels=tuple("abcd"))
    of_all = f1_score(truth, said, average="macro", labels=list("abcd"), zero_division=0)

    result = evaluate(
        predicted, truth_csv(tmp_path / "t.csv", [(f"{n}.jpg", label) for n, label in enumerate(truth)]), tmp_path / "r"
    )

    expected = f"of the 2 classes with images; none is of c, d: scikit-learn's f1_score over all 4 is {of_all:.4f}"
    assert re.search(rf"^macro F1 .*\n +{re.escape(expected)}$", result.stdout, re.MULTILINE), result.stdout
    for name in ("report.md", "report.html"):
        text = (tmp_path / "r" / name).read_text()
        assert "No image is of c, d: averages are over the other classes." in text
        assert f"{of_all:.4f}" in text


def test_nothing_is_said_of_classes_where_each_has_images(tmp_path: Path) -> None:
    rows, truth = rows_and_truth()

    result = evaluate(
        predictions_file(tmp_path / "p.parquet", rows), truth_csv(tmp_path / "t.csv", truth), tmp_path / "r"
    )

    assert "scikit-learn" not in result.stdout


@given(images=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_macro_f1_of_all_classes_is_that_of_scikit_learn(images: list[tuple[int, int]]) -> None:
    truth, said = np.array(images).T

    absent = absent_classes(confusion_matrix(truth, said, 4), "abcd")

    assert absent.macro_f1_of_all == pytest.approx(
        f1_score(truth, said, average="macro", labels=range(4), zero_division=0)
    )
    assert list(absent.labels) == [label for code, label in enumerate("abcd") if code not in truth]


def test_the_readmes_pattern_finds_the_patients_of_c_nmc(tmp_path: Path) -> None:
    pattern = re.search(r"such as `'(UID_.*?)'` in C-NMC's names", (ROOT / "README.md").read_text())
    names = ["all/UID_11_15_1_all.bmp", "all/UID_11_2_3_all.bmp", "hem/UID_H14_3_1_hem.bmp", "hem/UID_H4_1_10_hem.bmp"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert pattern

    table = LabeledImages.read(tmp_path, pattern[1]).table

    assert dict(zip(table["path"].to_pylist(), table["group"].to_pylist(), strict=True)) == dict(
        zip(names, ["11", "11", "H14", "H4"], strict=True)
    )


def dataset(source: Path, quiet: Console, **options: str) -> SplitDataset:
    return SplitDataset.read(source, SplitOptions(fractions=SplitFractions(0.25, 0.25), **options), quiet)


@pytest.mark.parametrize("spelling", ["windows", "decomposed", "blanks"])
def test_images_are_found_to_train_on_whatever_system_named_them(tmp_path: Path, quiet: Console, spelling: str) -> None:
    rows = [(f"é{number % 2}/\u00fc {number}.png", "ab"[number % 2]) for number in range(16)]
    for number, (name, _) in enumerate(rows):
        draw(tmp_path / name, number)
    spellings = {
        "windows": [name.replace("/", "\\") for name, _ in rows],
        "decomposed": [unicodedata.normalize("NFD", name) for name, _ in rows],
        "blanks": [f" {name} " for name, _ in rows],
    }
    pairs = [(name, label) for name, (_, label) in zip(spellings[spelling], rows, strict=True)]

    images = dataset(truth_csv(tmp_path / "t.csv", pairs), quiet)

    files = {slide.file for split in images.splits.values() for slide in split.slides}
    assert files == {str(tmp_path / name) for name, _ in rows}


def test_the_split_of_a_training_is_a_truth_from_anywhere(
    tmp_path: Path, quiet: Console, monkeypatch: pytest.MonkeyPatch, tiny_engine: Path
) -> None:
    for number in range(24):
        draw(tmp_path / "slides" / "abc"[number % 3] / f"{number}.png", number)
    shutil.copy(tmp_path / "slides" / "a" / "0.png", tmp_path / "slides" / "a" / "copy.png")
    (tmp_path / "slides" / "b" / "broken.png").write_text("no image")
    (tmp_path / "models").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    images = dataset(Path("slides"), quiet)
    with Path("models/n.split.csv").open("wb") as stream:
        images.write_split(stream, Path("models"))
    assert invoked("slides", "--engine", tiny_engine, "--out", "p.parquet").exit_code == 0

    for folder in (tmp_path, tmp_path / "elsewhere"):
        monkeypatch.chdir(folder)
        test = metrics_of(
            tmp_path / "p.parquet",
            tmp_path / "models" / "n.split.csv",
            tmp_path / f"{folder.name} test",
            "--split",
            "test",
        )
        whole = metrics_of(tmp_path / "p.parquet", tmp_path / "models" / "n.split.csv", tmp_path / folder.name)

        said = evaluate(
            tmp_path / "p.parquet", tmp_path / "models" / "n.split.csv", tmp_path / folder.name, "--overwrite"
        ).stdout
        assert "note        The truth has splits and no --split was given" in said
        assert test["matched"]["images"] == len(images.splits["test"].slides)
        assert (whole["matched"]["images"], whole["truth"]["left_out"]) == (24, 2)
        assert any("may have been trained on" in note for note in whole["notes"])
        assert not any("may have been trained on" in note for note in test["notes"])
