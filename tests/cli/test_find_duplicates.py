"""`batchcls find-duplicates` names the copies among images, what kind they are, and what it could not compare."""

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from batchcls.cli import main
from benchmarks.duplicates import KINDS
from benchmarks.duplicates import main as benchmark
from tests.conftest import DATA, draw
from tests.evaluation.test_evaluate import predictions_file

SIZE = (96, 72)


def found(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["find-duplicates", *map(str, arguments)])


def rows_of(out: Path) -> dict[str, tuple[str, str, str]]:
    """What each copy is a copy of, of which kind and in which orientation."""
    with out.open(newline="") as stream:
        return {row["path"]: (row["of_path"], row["kind"], row["orientation"]) for row in csv.DictReader(stream)}


def turned(path: Path, copy: Path) -> None:
    Image.open(path).transpose(Image.Transpose.ROTATE_270).save(copy)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Six different images, and six copies of five of them."""
    folder = tmp_path / "images"
    for number in range(6):
        draw(folder / f"{number}.png", seed=number, size=SIZE)
    shutil.copy(folder / "0.png", folder / "0-bytes.png")
    Image.open(folder / "1.png").save(folder / "1-pixels.bmp")
    Image.open(folder / "2.png").save(folder / "2-recompressed.jpg", quality=40)
    turned(folder / "3.png", folder / "3-turned.png")
    Image.open(folder / "4.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "4-mirrored.jpg", quality=70)
    Image.open(folder / "4.png").resize((88, 66), Image.Resampling.BICUBIC).save(folder / "4-smaller.png")
    return folder


COPIES = {
    "0.png": ("0-bytes.png", "same bytes", "as it is"),
    "1.png": ("1-pixels.bmp", "same pixels", "as it is"),
    "2.png": ("2-recompressed.jpg", "near", "as it is"),
    "3.png": ("3-turned.png", "same pixels", "turned 270"),
    "4.png": ("4-mirrored.jpg", "near", "mirrored"),
    "4-smaller.png": ("4-mirrored.jpg", "near", "mirrored"),
}
"""The first in the order of names is kept, if it is not the smaller one."""


def test_copies_of_every_kind_are_found_and_nothing_else(images: Path, tmp_path: Path) -> None:
    result = found(images, "--out", tmp_path / "pairs.csv")

    assert result.exit_code == 0, result.output
    assert rows_of(tmp_path / "pairs.csv") == COPIES
    assert "12 images, 0 unreadable: 6 copies in 5 groups" in result.stdout
    assert "copies    near 3, same bytes 1, same pixels 2" in result.stdout


def test_a_parquet_table_holds_the_same(images: Path, tmp_path: Path) -> None:
    found(images, "--out", tmp_path / "pairs.csv")
    found(images, "--out", tmp_path / "pairs.parquet")

    table = pq.read_table(tmp_path / "pairs.parquet")
    assert {row["path"]: (row["of_path"], row["kind"], row["orientation"]) for row in table.to_pylist()} == COPIES
    assert table["group"].to_pylist() == [1, 2, 3, 4, 5, 5]
    assert 0 <= min(table["distance"].to_pylist()) <= max(table["distance"].to_pylist()) <= 0.1


def test_across_two_sets_only_pairs_of_both_count(images: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(images / "5.png", other / "again.png")
    turned(images / "0.png", other / "turned.png")
    draw(other / "new.png", seed=77, size=SIZE)

    result = found(images, other, "--out", tmp_path / "pairs.csv")

    assert result.exit_code == 0, result.output
    pairs = sorted(
        (row["path"], row["of_path"]) for row in csv.DictReader((tmp_path / "pairs.csv").read_text().splitlines())
    )
    assert pairs == [("again.png", "5.png"), ("turned.png", "0-bytes.png"), ("turned.png", "0.png")]


def test_a_file_of_both_sets_is_no_copy_of_itself(images: Path, tmp_path: Path) -> None:
    part = tmp_path / "images" / "part"
    part.mkdir()
    shutil.copy(images / "5.png", part)

    result = found(images, part, "--out", tmp_path / "pairs.csv")

    assert result.exit_code == 1
    assert "holds no image that the other set does not" in result.output


def test_an_empty_folder_beside_another_set_is_said_to_be_empty(images: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    result = found(images, tmp_path / "empty", "--out", tmp_path / "pairs.csv")

    assert result.exit_code == 1
    assert "empty' holds no image; name another set" in result.output


def test_blank_images_are_counted_and_make_no_pairs(images: Path, tmp_path: Path) -> None:
    for level in range(200, 240):
        Image.new("RGB", SIZE, (level, level, level)).save(images / f"white-{level}.png")
    shutil.copy(images / "white-200.png", images / "white-again.png")

    result = found(images, "--out", tmp_path / "pairs.csv")

    assert "note: 41 images are blank" in result.stdout
    assert rows_of(tmp_path / "pairs.csv") == {
        **COPIES,
        "white-again.png": ("white-200.png", "same bytes", "as it is"),
    }


def test_unreadable_images_are_named_and_the_others_compared(
    images: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (images / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    os.mkfifo(images / "pipe.png")

    result = found(images, "--out", tmp_path / "pairs.csv")

    assert result.exit_code == 0, result.output
    assert "14 images, 2 unreadable: 6 copies" in result.stdout
    named = capfd.readouterr().err
    assert "broken.jpg: corrupt" in named
    assert "pipe.png: not an image" in named
    assert rows_of(tmp_path / "pairs.csv") == COPIES


def with_embeddings(path: Path, images: Path, embeddings: list[list[float]], onnx: str = "aa") -> Path:
    """A predictions file of `images`, in the order of their names, with these embeddings."""
    names = sorted(os.listdir(images))
    rows = [(name, "a", 0.9) for name in names]
    table = pq.read_table(predictions_file(path, rows, roots=str(images), engine={"onnx_sha256": onnx}))
    values = pa.array(np.array(embeddings, np.float16).ravel())
    lists = pa.FixedSizeListArray.from_arrays(values, len(embeddings[0]))
    pq.write_table(table.append_column("embedding", lists), path)
    return path


def test_files_that_are_gone_are_compared_by_their_embeddings(
    images: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    count = len(os.listdir(images))
    embeddings = [[number, 1.0, 0.5] for number in range(count)]
    embeddings[-1] = embeddings[-2]  # of the last two images, which differ
    embeddings[0], embeddings[1] = [0.0] * 3, [0.0] * 3
    embeddings[2] = [float("nan")] * 3
    predictions = with_embeddings(tmp_path / "p.parquet", images, embeddings)
    names = sorted(os.listdir(images))
    os.unlink(images / names[-1])

    result = found(predictions, "--out", tmp_path / "pairs.csv")

    assert result.exit_code == 0, result.output
    assert rows_of(tmp_path / "pairs.csv") == {**COPIES, names[-1]: (names[-2], "same embedding", "")}
    assert f"{names[-1]}: missing" in capfd.readouterr().err
    assert "1 embeddings that are no numbers" in result.stdout


def test_files_without_embeddings_or_of_two_engines_are_said(images: Path, tmp_path: Path) -> None:
    count = len(os.listdir(images))
    embeddings = [[number, 1.0] for number in range(count)]
    other = tmp_path / "other"
    shutil.copytree(images, other)
    plain = predictions_file(tmp_path / "plain.parquet", [("0.png", "a", 0.9), ("1.png", None, 0)], roots=str(images))
    first = with_embeddings(tmp_path / "first.parquet", images, embeddings, "aa")
    second = with_embeddings(tmp_path / "second.parquet", other, embeddings, "bb")

    whole = found(plain, "--out", tmp_path / "whole.csv")
    (images / "1.png").rename(tmp_path / "moved.png")
    without = found(plain, "--out", tmp_path / "pairs.csv")
    (tmp_path / "moved.png").rename(images / "1.png")
    two = found(first, second, "--out", tmp_path / "two.csv")
    rewritten = pq.read_table(second)
    pq.write_table(rewritten.replace_schema_metadata(None), second)
    lost = found(first, second, "--labels", "a,b,c", "--out", tmp_path / "lost.csv")

    assert "the record of one does not name its engine" in lost.stdout, lost.output
    assert "of different engines" not in lost.stdout
    assert "run again with --embeddings" in without.stdout
    assert "--embeddings" not in whole.stdout  # every image was read
    assert "of different engines" in two.stdout
    assert set(rows_of(tmp_path / "two.csv")) == set(os.listdir(images))


def test_a_file_that_lost_its_metadata_is_read_by_the_labels_that_it_is_told(images: Path, tmp_path: Path) -> None:
    predictions = predictions_file(
        tmp_path / "p.parquet", [(name, None, 0) for name in sorted(os.listdir(images))], roots=str(images)
    )
    pq.write_table(pq.read_table(predictions).replace_schema_metadata(None), predictions)

    refused = found(predictions, "--out", tmp_path / "pairs.csv")
    told = found(predictions, "--labels", "a,b,c", "--out", tmp_path / "pairs.csv")

    assert "name them: --labels A,B,..." in refused.stderr
    assert told.exit_code == 0, told.output
    assert rows_of(tmp_path / "pairs.csv") == COPIES


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("one", "--out", "o.csv"), "copies need two or more"),
        (("images", "--out", "o.txt"), "ends in neither .csv nor .parquet"),
        (("images", "--out", "gone/o.csv"), "the folder does not exist"),
        (("images", "--out", "there.csv"), "exists; choose another --out, or replace it with --overwrite"),
        (("there.csv", "--out", "o.csv"), "is no predictions file"),
        (("images", "--out", "o.csv", "--distance", "0.9"), "0.9 is not in the range"),
    ],
)
def test_what_cannot_work_is_refused(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "one" / "0.png")
    (tmp_path / "there.csv").write_text("precious")

    result = found(*arguments)

    assert result.exit_code in (1, 2)
    assert reason in result.output
    assert (tmp_path / "there.csv").read_text() == "precious"
    assert not (tmp_path / "o.csv").exists()


def test_a_predictions_file_that_names_other_files_gets_no_more_than_their_names(
    images: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = with_embeddings(tmp_path / "p.parquet", images, [[1.0, 2.0]] * len(os.listdir(images)))
    table = pq.read_table(path)
    names = [f"{'../' * 12}etc/passwd", "/dev/zero", "\x1b[2J", *["0.png"] * (len(table) - 3)]
    record = {"labels": ["a", "b", "c"], "engine": [], "identity": {}}
    table = table.set_column(1, "path", pa.array(names)).replace_schema_metadata({"batchcls": json.dumps(record)})
    pq.write_table(table, path)

    result = found(path, "--out", tmp_path / "pairs.csv")

    assert "4 images, 3 unreadable" in result.stdout
    named = capfd.readouterr().err
    assert "\x1b" not in named
    assert "passwd: not an image" in named
    assert "zero: not an image" in named
    assert {copy[1] for copy in rows_of(tmp_path / "pairs.csv").values()} == {"same embedding"}


@pytest.mark.skipif(not (DATA / "all4").is_dir(), reason="the data set all4 is not here")
def test_the_known_copies_of_a_real_folder_are_found(tmp_path: Path) -> None:
    result = found(DATA / "all4" / "Pro", "--out", tmp_path / "pairs.csv")

    assert "same bytes 40" in result.stdout
    numbers = [(int(a[-7:-4]), int(b[0][-7:-4])) for a, b in rows_of(tmp_path / "pairs.csv").items()]
    assert all(abs(number - other) <= 2 for number, other in numbers)


def test_the_benchmark_finds_every_copy_of_every_kind_among_drawn_images() -> None:
    result = CliRunner().invoke(benchmark, ["--images", "100", "--copies", "0.28"])

    assert result.exit_code == 0, result.output
    for kind in KINDS:
        assert f"| {kind} | 4 | 4 | 100.00% |" in result.output
    assert "Other pairs: 0 of one source, 0 of two." in result.output
