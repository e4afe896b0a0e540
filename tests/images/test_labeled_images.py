"""Labels, read from folders and tables."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchcls.errors import LabelsError
from batchcls.images.labels.labeled_images import LabeledImages
from tests.conftest import draw


def rows(labelled: LabeledImages) -> dict[str, list[str]]:
    table = labelled.table.sort_by("path")
    return {name: table[name].to_pylist() for name in table.column_names}


def test_folders_are_classes_to_any_depth(tmp_path: Path) -> None:
    for path in ("ALL/1.jpg", "ALL/patient 7/2.png", "normal/1.jpg", "beside.jpg"):
        draw(tmp_path / path)

    labelled = LabeledImages.read(tmp_path)

    paths = ["ALL/1.jpg", "ALL/patient 7/2.png", "normal/1.jpg"]
    assert rows(labelled) == {"path": paths, "label": ["ALL", "ALL", "normal"]}
    assert labelled.unlabeled == 1


def test_folders_called_like_parts_hold_the_classes(tmp_path: Path) -> None:
    for path in ("train/a/1.jpg", "train/b/1.jpg", "Validation/a/1.jpg", "test/b/1.jpg"):
        draw(tmp_path / path)

    assert rows(LabeledImages.read(tmp_path)) == {
        "path": ["Validation/a/1.jpg", "test/b/1.jpg", "train/a/1.jpg", "train/b/1.jpg"],
        "label": ["a", "b", "a", "b"],
        "split": ["val", "test", "train", "train"],
    }


def test_a_class_may_be_called_test(tmp_path: Path) -> None:
    for path in ("test/1.jpg", "control/1.jpg"):
        draw(tmp_path / path)

    assert rows(LabeledImages.read(tmp_path))["label"] == ["control", "test"]


@pytest.mark.parametrize(
    "text",
    [
        ",path,label,group,split\n0,1.jpg,01,007,train\n1,2.jpg,1,7,test\n",
        "path,label,group,split,,\n1.jpg,01,007,train,,\n2.jpg,1,7,test,,\n",
        "\ufeffPath;Label;Group;Split\r\n1.jpg;01;007;Train\r\n2.jpg;1;7;TEST\r\n",
        "path\t label\tgroup\tsplit\n1.jpg\t01\t007\ttrain\n2.jpg\t1\t7\ttest\n",
    ],
    ids=["of pandas", "of Excel with empty columns", "of a European Excel", "tabs"],
)
def test_a_csv_file_is_read_however_it_was_written(tmp_path: Path, text: str) -> None:
    (tmp_path / "labels.csv").write_text(text)

    assert rows(LabeledImages.read(tmp_path / "labels.csv")) == {
        "path": ["1.jpg", "2.jpg"],
        "label": ["01", "1"],
        "group": ["007", "7"],
        "split": ["train", "test"],
    }


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_table_may_say_more_than_it_must(tmp_path: Path, ending: str) -> None:
    table = pa.table(
        {
            "path": ["1.jpg", "2.jpg", "3.jpg"],
            "label": ["0", "NA", "null"],
            "patient": ["p1", "p1", "p2"],
            "split": ["train", "valid", None],
        }
    )
    path = tmp_path / f"labels.{ending}"
    if ending == "csv":
        path.write_text("path,label,patient,split\n1.jpg,0,p1,train\n2.jpg,NA,p1,valid\n3.jpg,null,p2,\n")
    else:
        pq.write_table(table, path)

    labelled = LabeledImages.read(path, "patient")

    assert rows(labelled) == {
        "path": ["1.jpg", "2.jpg", "3.jpg"],
        "label": ["0", "NA", "null"],
        "split": ["train", "val", None],
        "group": ["p1", "p1", "p2"],
    }
    assert labelled.root == tmp_path


def test_a_pattern_finds_groups_in_paths(tmp_path: Path) -> None:
    for path in ("a/UID_12_1.jpg", "a/UID_12_2.jpg", "b/UID_7_1.jpg"):
        draw(tmp_path / path)

    assert rows(LabeledImages.read(tmp_path, r"UID_(\d+)_"))["group"] == ["12", "12", "7"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("file,label\n1.jpg,a\n", "no column 'path'; it has .*'file'"),
        ("path,label\n1.jpg,\n", "1 rows without a label"),
        ("path,label\n1.jpg,a\n1.jpg,b\n", "1 paths more than once: '1.jpg'"),
        ("path,label,split\n1.jpg,a,maybe\n", "splits: 'maybe'; use train, val and test"),
        ("path,label\n1.jpg\n", "cannot be read as a table"),
        ("path,label\n", "no labeled image"),
        ("", "cannot be read as a table"),
    ],
)
def test_a_table_that_is_not_understood_is_refused(tmp_path: Path, content: str, reason: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(content)

    with pytest.raises(LabelsError, match=reason):
        LabeledImages.read(path)


def test_a_pattern_must_fit_every_path(tmp_path: Path) -> None:
    for path in ("a/p1_1.jpg", "a/other.jpg", "b/p2_1.jpg"):
        draw(tmp_path / path)

    with pytest.raises(LabelsError, match=r"finds nothing in 1 of 3 paths: 'a/other\.jpg'"):
        LabeledImages.read(tmp_path, r"p\d")
    with pytest.raises(LabelsError, match="neither a column nor a regular expression"):
        LabeledImages.read(tmp_path, "(")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabelsError, match="a folder of images for each class"):
        LabeledImages.read(tmp_path)
