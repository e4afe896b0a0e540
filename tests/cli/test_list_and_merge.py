"""A list of slides, the shards that share it out, and what a shard refuses."""

import json
import shutil
import signal
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from batchcls import run
from batchcls.cli import main
from batchcls.errors import SlidesError
from batchcls.images.sources.shard import slide_hash
from batchcls.records import Slide
from batchcls.storage.file_names import original
from tests.commandline import PATIENCE_S, command, invoked, links, partial, wait_for
from tests.conftest import draw

FILES = 50
KEY = b"batchcls"


def listed(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["list", *map(str, arguments)])


def record_of(path: Path) -> dict[str, object]:
    with pq.ParquetFile(path) as file:
        record: dict[str, object] = json.loads(file.metadata.metadata[KEY])
    return record


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images in ``slides``, one of them with a name that is not UTF-8, and their list beside it."""
    folder = tmp_path_factory.mktemp("place")
    images = [draw(folder / "drawn" / f"{seed}.bmp", seed, (16, 12)) for seed in range(3)]
    links(folder / "slides", FILES, images)
    shutil.copy(images[0], folder / "slides" / "\udcff.bmp")
    (folder / "slides" / "notes.txt").touch()
    assert listed(folder / "slides", "--out", folder / "files.parquet").exit_code == 0
    return folder


def test_the_list_names_every_slide_once_in_the_order_of_the_listing(place: Path) -> None:
    table = pq.read_table(place / "files.parquet")

    slides = [Slide(row["root"], original(row["path"])) for row in table.select(["root", "path"]).to_pylist()]
    assert [slide.path for slide in slides] == sorted(path.name for path in (place / "slides").glob("*.bmp"))
    assert {slide.root for slide in slides} == {str(place / "slides")}
    assert table["hash"].to_pylist() == list(map(slide_hash, slides))
    assert table.schema.field("root").type == pa.dictionary(pa.int32(), pa.string())
    assert record_of(place / "files.parquet")["roots"] == [str(place / "slides")]
    assert record_of(place / "files.parquet")["rows"] == FILES + 1


def test_the_list_is_the_same_each_time_and_another_one_for_other_slides(place: Path, tmp_path: Path) -> None:
    again, fewer = tmp_path / "again.parquet", tmp_path / "fewer.parquet"
    listed(place / "slides", "--out", again)
    listed(place / "drawn", "--out", fewer)
    assert again.read_bytes() == (place / "files.parquet").read_bytes()
    assert record_of(again)["list"] != record_of(fewer)["list"]


def test_list_says_what_came_of_it(place: Path, tmp_path: Path) -> None:
    result = listed(place / "slides", "--out", tmp_path / "files.parquet", "--strict")
    assert result.exit_code == 0
    assert result.output.splitlines()[:2] == [
        f"{FILES + 1} files -> {tmp_path / 'files.parquet'}",
        "passed by not an image 1",
    ]
    quiet = listed(place / "slides", "--out", tmp_path / "files.parquet", "--overwrite", "--quiet")
    assert (quiet.exit_code, quiet.output) == (0, "")


def test_a_list_that_cannot_be_made_is_one_line_and_leaves_nothing(place: Path, tmp_path: Path) -> None:
    empty, out = tmp_path / "empty", tmp_path / "files.parquet"
    empty.mkdir()
    assert "no image was found" in listed(empty, "--out", out).output
    assert list(tmp_path.iterdir()) == [empty]
    assert "is not named .parquet" in listed(place / "slides", "--out", tmp_path / "files.csv").output
    out.write_text("mine")
    assert "exists; choose another --out" in listed(place / "slides", "--out", out).output
    assert out.read_text() == "mine"
    assert "No such file or directory" in listed(place / "slides", "--out", tmp_path / "no" / "files.parquet").output


def test_a_list_carries_columns_of_a_table_on_to_the_predictions(
    place: Path, tiny_engine: Path, tmp_path: Path
) -> None:
    table, out = place / "patients.csv", tmp_path / "o.parquet"
    table.write_text("path,patient,hash\nslides/000001.bmp,Ada,1\nslides/000000.bmp,,2\nslides/000001.bmp,Ada,1\n")
    files = place / "of_patients.parquet"

    assert listed(table, "--out", files, "--keep", "patient").exit_code == 0
    assert (
        invoked(files, "--engine", tiny_engine, "--backend", "null", "--keep", "patient", "--out", out).exit_code == 0
    )

    assert pq.read_table(files).select(["path", "patient"]).to_pylist() == [
        {"path": "slides/000001.bmp", "patient": "Ada"},
        {"path": "slides/000000.bmp", "patient": None},
    ]
    assert pq.read_table(out)["patient"].to_pylist() == [None, "Ada"]
    refused = listed(table, "--out", tmp_path / "other.parquet", "--keep", "hash")
    assert "--keep hash: a list has a column of its own by this name" in refused.output


def run_shard(place: Path, engine: Path, shard: str, folder: Path, *options: str) -> Result:
    slides = options[:1] or (place / "files.parquet",)
    return invoked(*slides, "--engine", engine, "--backend", "null", "--shard", shard, "--out", folder)


def test_the_shards_of_a_list_are_those_of_its_hashes_and_merge_to_one_run(
    place: Path, tiny_engine: Path, tmp_path: Path
) -> None:
    whole, out = tmp_path / "whole.parquet", tmp_path / "merged.parquet"
    listed_rows = pq.read_table(place / "files.parquet")
    assert invoked(place / "files.parquet", "--engine", tiny_engine, "--backend", "null", "--out", whole).exit_code == 0

    for index in range(3):
        assert run_shard(place, tiny_engine, f"{index}/3", tmp_path / "preds").exit_code == 0
        rows = pq.read_table(tmp_path / "preds" / f"shard-0000{index}-of-00003.parquet")
        hashes = [number % 3 == index for number in listed_rows["hash"].to_pylist()]
        assert sorted(rows["path"].to_pylist()) == sorted(listed_rows["path"].filter(pa.array(hashes)).to_pylist())
    merged = CliRunner().invoke(main, ["merge", str(tmp_path / "preds"), "--out", str(out)])

    assert merged.exit_code == 0, merged.output
    assert pq.read_table(out).equals(pq.read_table(whole))
    assert record_of(out)["shards"]["list"] == record_of(place / "files.parquet")["list"]  # type: ignore[index]


def test_a_shard_may_be_empty_but_not_all_of_them(place: Path, tiny_engine: Path, tmp_path: Path) -> None:
    draw(tmp_path / "one" / "1.bmp", 1, (16, 12))
    for index in range(2):
        assert run_shard(place, tiny_engine, f"{index}/2", tmp_path / "preds", str(tmp_path / "one")).exit_code == 0
    rows = [len(pq.read_table(path)) for path in sorted((tmp_path / "preds").iterdir())]
    assert sorted(rows) == [0, 1]
    again = run_shard(place, tiny_engine, f"{rows.index(0)}/2", tmp_path / "preds", str(tmp_path / "one"))
    assert again.exit_code == 0
    merge = ["merge", str(tmp_path / "preds"), "--out", str(tmp_path / "merged.parquet")]
    assert CliRunner().invoke(main, merge).exit_code == 0
    assert len(pq.read_table(tmp_path / "merged.parquet")) == 1

    (tmp_path / "none").mkdir()
    for index in range(2):
        assert run_shard(place, tiny_engine, f"{index}/2", tmp_path / "empty", str(tmp_path / "none")).exit_code == 0
    merge = ["merge", str(tmp_path / "empty"), "--out", str(tmp_path / "no.parquet")]
    refused = CliRunner().invoke(main, merge)
    assert refused.exit_code == 1
    assert "have no rows: no image was found in any of them" in refused.output


def test_a_shard_with_another_list_or_another_number_is_refused(place: Path, tiny_engine: Path, tmp_path: Path) -> None:
    other = tmp_path / "files.parquet"
    table = pq.read_table(place / "files.parquet")
    pq.write_table(table.filter(pc.not_equal(table["path"], table["path"][0])), other)
    root = f"--root={place}"
    folder = tmp_path / "preds"
    assert run_shard(place, tiny_engine, "0/2", folder).exit_code == 0

    arguments = ("--engine", tiny_engine, "--backend", "null", "--out", folder, root)
    with_other_list = invoked(other, *arguments, "--shard", "0/2")
    with_other_number = invoked(other, *arguments, "--shard", "0/3")

    assert with_other_list.exit_code == with_other_number.exit_code == 1
    assert "exists, made with shard {'list': " in with_other_list.output
    assert "holds 'shard-00000-of-00002.parquet', one of 2: name the same number" in with_other_number.output


def test_a_killed_shard_goes_on_where_it_was(place: Path, tiny_engine: Path, tmp_path: Path) -> None:
    slides = links(tmp_path / "many", 3000, [place / "drawn" / "0.bmp"])
    out = tmp_path / "preds" / "shard-00001-of-00002.parquet"
    arguments = [slides, "--engine", tiny_engine, "--backend", "null", "--shard", "1/2", "--out", tmp_path / "preds"]
    process = subprocess.Popen(command(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_for(partial(out) / "run.json", process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE_S)
    begun = partial(out).exists()

    for index in range(2):
        arguments[6] = f"{index}/2"
        assert invoked(*arguments).exit_code == 0
    merge = ["merge", str(tmp_path / "preds"), "--out", str(tmp_path / "merged.parquet")]

    assert begun == (process.returncode == 143)
    assert CliRunner().invoke(main, merge).exit_code == 0
    assert pq.read_table(tmp_path / "merged.parquet")["path"].to_pylist() == [f"{n:06d}.bmp" for n in range(3000)]


def test_a_program_runs_shards_too(place: Path, tiny_engine: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"engine": tiny_engine, "out": tmp_path / "preds", "backend": "null", "device": "cpu"}
    rows = [run(place / "files.parquet", shard=(index, 2), **options).rows for index in range(2)]
    assert sum(rows) == FILES + 1
    assert len(list((tmp_path / "preds").glob("shard-*-of-00002.parquet"))) == 2
    with pytest.raises(SlidesError, match="shard 2/2 was asked for"):
        run(place / "files.parquet", shard=(2, 2), **options)


def test_the_shards_of_an_archives_list_merge_to_a_run_of_the_archive(
    place: Path, tiny_engine: Path, tmp_path: Path
) -> None:
    whole, files, out = (tmp_path / name for name in ("whole.parquet", "files.parquet", "merged.parquet"))
    with tarfile.open(tmp_path / "slides.tar", "w") as archive:
        archive.add(place / "slides", "slides")
    common = ("--engine", tiny_engine, "--backend", "null", "--quiet")
    assert invoked(tmp_path / "slides.tar", *common, "--out", whole).exit_code == 0
    assert listed(tmp_path / "slides.tar", "--out", files).exit_code == 0
    for index in range(2):
        assert invoked(files, *common, "--shard", f"{index}/2", "--out", tmp_path / "preds").exit_code == 0

    merge = CliRunner().invoke(main, ["merge", str(tmp_path / "preds"), "--out", str(out)])

    assert merge.exit_code == 0, merge.output
    assert pq.read_table(out).equals(pq.read_table(whole))
