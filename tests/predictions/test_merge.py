"""Shards merged into the file of a single run; what does not belong together is refused in one line."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from batchcls.cli import main
from batchcls.storage.object_reader import open_object
from tests.commandline import invoked, links
from tests.conftest import draw
from tests.object_servers import fill_bucket, moto_server, s3_environment

COUNT, FILES = 5, 60
KEY = b"batchcls"


def shard_name(index: int) -> str:
    return f"shard-{index:05d}-of-{COUNT:05d}.parquet"


def run_shard(slides: Path, engine: Path, index: int, folder: Path | str, *options: str | Path) -> Result:
    return invoked(
        slides, "--engine", engine, "--backend", "null", "--shard", f"{index}/{COUNT}", "--out", folder, *options
    )


def merged(folder: Path | str, out: Path | str, *options: str) -> Result:
    return CliRunner().invoke(main, ["merge", str(folder), "--out", str(out), *options])


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images below two folders, and one file that is no image."""
    folder = tmp_path_factory.mktemp("slides")
    images = [draw(folder / "drawn" / f"{seed}.bmp", seed, (16, 12)) for seed in range(3)]
    links(folder / "many", FILES, images)
    (folder / "many" / "empty.bmp").touch()
    return folder


@pytest.fixture(scope="module")
def whole(slides: Path, tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The predictions of a single run."""
    out = tmp_path_factory.mktemp("whole") / "whole.parquet"
    assert invoked(slides, "--engine", tiny_engine, "--backend", "null", "--out", out).exit_code == 0
    return out


@pytest.fixture(scope="module")
def made(slides: Path, tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "preds"
    for index in range(COUNT):
        assert run_shard(slides, tiny_engine, index, folder).exit_code == 0
    return folder


@pytest.fixture
def shards(made: Path, tmp_path: Path) -> Path:
    """All shards, to be changed."""
    return Path(shutil.copytree(made, tmp_path / "preds"))


def rewritten(path: Path, rows: Callable[[pa.Table], pa.Table], **changed: Any) -> None:
    """Change rows of a file, and values of its record."""
    table = pq.read_table(path)
    record = json.loads(table.schema.metadata[KEY])
    for key, value in changed.items():
        record[key] = {**record[key], **value}
    pq.write_table(rows(table).replace_schema_metadata({KEY: json.dumps(record)}), path)


def test_the_merged_file_is_that_of_a_single_run(shards: Path, whole: Path, slides: Path, tiny_engine: Path) -> None:
    out = shards.parent / "merged.parquet"

    result = merged(shards, out)
    again = invoked(slides, "--engine", tiny_engine, "--backend", "null", "--out", out)

    assert result.exit_code == 0, result.output
    assert f"{FILES + 4} rows of {COUNT} shards, 1 unreadable -> {out}" in result.output
    table, expected = pq.read_table(out), pq.read_table(whole)
    assert table.equals(expected)
    assert table.schema.equals(expected.schema)
    assert f"resumed   {FILES + 4} of the rows were done before" in again.output  # a run takes it for its own
    assert sorted(path.name for path in out.parent.iterdir()) == ["merged.parquet", "preds"]


def test_the_merged_record_adds_up_what_the_shards_recorded(shards: Path, whole: Path) -> None:
    out = shards.parent / "merged.parquet"
    merged(shards, out, "--quiet")

    record, single = (json.loads(pq.read_schema(path).metadata[KEY]) for path in (out, whole))
    parts = [json.loads(pq.read_schema(shards / shard_name(index)).metadata[KEY]) for index in range(COUNT)]
    assert record["counts"] == single["counts"]
    assert record["identity"] == single["identity"]
    assert record["limits"] == single["limits"]
    assert record["throughput"]["files"] == single["throughput"]["files"]
    assert record["shards"]["rows"] == [part["counts"]["rows"] for part in parts]
    assert record["started"] == min(record["shards"]["started"])
    assert record["ended"] == max(record["shards"]["ended"])
    assert set(record) - set(single) == {"shards"}


def test_missing_and_unfinished_shards_are_named_as_an_array_takes_them(shards: Path) -> None:
    for index in (0, 2, 3):
        (shards / shard_name(index)).unlink()
    (shards / (shard_name(3) + ".partial")).mkdir()

    result = merged(shards, shards.parent / "merged.parquet")

    assert result.exit_code == 1
    assert "lacks 3 of 5 shards (3 begun and not finished)" in result.output
    assert "sbatch --array=0,2-3 SCRIPT, where SCRIPT has --shard auto/5" in result.output
    assert result.output.count("\n") == 1
    assert [path.name for path in shards.parent.iterdir()] == ["preds"]


def test_a_shard_that_is_tried_again_at_the_moment_counts_as_it_is(shards: Path, whole: Path) -> None:
    (shards / (shard_name(3) + ".partial")).mkdir()
    out = shards.parent / "merged.parquet"
    assert merged(shards, out).exit_code == 0
    assert pq.read_table(out).equals(pq.read_table(whole))


def test_a_folder_without_shards_and_one_with_two_numbers_of_them_are_refused(shards: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "holds no file of a shard" in merged(empty, tmp_path / "merged.parquet").output

    shutil.copy(shards / shard_name(0), shards / "shard-00000-of-00007.parquet")
    assert "shards of different numbers, 5 and 7" in merged(shards, tmp_path / "merged.parquet").output


def test_a_doubled_shard_is_refused(shards: Path, tmp_path: Path) -> None:
    shutil.copy(shards / shard_name(1), shards / shard_name(4))
    result = merged(shards, tmp_path / "merged.parquet")
    assert result.exit_code == 1
    assert f"{shard_name(4)}' cannot be read as batchcls run wrote it: it holds shard 1/5; mend that" in result.output


@pytest.mark.parametrize(
    ("key", "value"), [("onnx_sha256", "other"), ("precision", "bf16"), ("labels", ["a", "b", "d"]), ("slides", ["x"])]
)
def test_shards_of_another_engine_or_of_other_slides_are_named(
    shards: Path, tmp_path: Path, key: str, value: Any
) -> None:
    for index in (1, 2):
        identity = json.loads(pq.read_schema(shards / shard_name(index)).metadata[KEY])["identity"]
        rewritten(shards / shard_name(index), lambda table: table, identity={**identity, key: value})

    result = merged(shards, tmp_path / "merged.parquet")

    assert result.exit_code == 1
    assert f"1-2 were made with {key} {value!r}, most others with {key} " in result.output
    assert "run them again as the others: 1-2" in result.output


def test_shards_of_another_list_are_named(shards: Path, tmp_path: Path) -> None:
    identity = json.loads(pq.read_schema(shards / shard_name(0)).metadata[KEY])["identity"]
    shard = {**identity["shard"], "list": "other"}
    rewritten(shards / shard_name(0), lambda table: table, identity={**identity, "shard": shard})
    assert "0 were made with list 'other', most others with list None" in merged(shards, tmp_path / "m.parquet").output


@pytest.mark.parametrize("rows", [lambda table: table.slice(1), lambda table: pa.concat_tables([table, table])])
def test_rows_that_were_taken_or_added_are_noticed(shards: Path, tmp_path: Path, rows: Callable[..., pa.Table]) -> None:
    rewritten(shards / shard_name(2), rows)
    result = merged(shards, tmp_path / "merged.parquet")
    assert result.exit_code == 1
    assert f"{shard_name(2)}' cannot be read as batchcls run wrote it: it was changed since" in result.output


def test_a_file_with_two_rows_is_noticed_even_if_all_records_agree(shards: Path, tmp_path: Path) -> None:
    theirs = pq.read_table(shards / shard_name(1)).slice(0, 1)
    rows = len(pq.read_table(shards / shard_name(0))) + 1
    rewritten(shards / shard_name(0), lambda table: pa.concat_tables([table, theirs]), counts={"rows": rows})
    result = merged(shards, tmp_path / "merged.parquet")
    assert result.exit_code == 1
    assert f"two shards have a row of {theirs['path'][0].as_py()!r}" in result.output
    assert not (tmp_path / "merged.parquet").exists()


def test_fewer_rows_than_the_list_has_are_noticed(shards: Path, tmp_path: Path) -> None:
    for path in shards.iterdir():
        identity = json.loads(pq.read_schema(path).metadata[KEY])["identity"]
        shard = {**identity["shard"], "list": "ab", "list_rows": FILES + 5}
        rewritten(path, lambda table: table, identity={**identity, "shard": shard})
    result = merged(shards, tmp_path / "merged.parquet")
    assert f"have {FILES + 4} rows together, and the list that they share out has {FILES + 5}" in result.output


@pytest.mark.parametrize("content", [b"", b"PAR1 and no more", b"PAR1" + bytes(100) + b"PAR1"])
def test_a_shard_that_is_no_parquet_file_is_one_line(shards: Path, tmp_path: Path, content: bytes) -> None:
    (shards / shard_name(4)).write_bytes(content)
    result = merged(shards, tmp_path / "merged.parquet")
    assert result.exit_code == 1
    assert f"{shard_name(4)}' cannot be read as batchcls run wrote it" in result.output
    assert result.output.count("\n") == 1


@pytest.mark.parametrize("damage", [{"counts": {"labels": 3}}, {"throughput": {"seconds": 3}}])
def test_a_damaged_record_is_one_line(shards: Path, tmp_path: Path, damage: dict[str, Any]) -> None:
    rewritten(shards / shard_name(4), lambda table: table, **damage)
    result = merged(shards, tmp_path / "merged.parquet")
    assert (result.exit_code, result.output.count("\n")) == (1, 1), result.output


def test_an_existing_file_is_replaced_only_when_that_is_asked_for(shards: Path, tmp_path: Path, whole: Path) -> None:
    out = tmp_path / "merged.parquet"
    out.write_text("mine")
    assert "exists; choose another --out, or replace it with --overwrite" in merged(shards, out).output
    assert out.read_text() == "mine"
    assert merged(shards, out, "--overwrite").exit_code == 0
    assert pq.read_table(out).equals(pq.read_table(whole))
    assert "shards are merged as .parquet" in merged(shards, tmp_path / "merged.csv").output


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an empty bucket."""
    with moto_server(tmp_path_factory.mktemp("s3") / "log.txt") as endpoint, pytest.MonkeyPatch.context() as patch:
        for name, value in s3_environment(endpoint).items():
            patch.setenv(name, value)
        fill_bucket(endpoint, {}, "merging")
        yield "s3://merging"


def test_shards_in_a_bucket_are_merged_into_a_file_or_an_object(
    slides: Path, tiny_engine: Path, whole: Path, bucket: str, tmp_path: Path
) -> None:
    folder, out = f"{bucket}/some/preds", f"{bucket}/some/merged.parquet"
    for index in range(COUNT - 1):
        assert run_shard(slides, tiny_engine, index, folder).exit_code == 0
    lacking = merged(folder, tmp_path / "merged.parquet")
    assert run_shard(slides, tiny_engine, COUNT - 1, folder).exit_code == 0

    in_file = merged(folder, tmp_path / "merged.parquet")
    in_object = merged(folder, out)
    again = merged(folder, out)

    assert "lacks 1 of 5 shards" in lacking.output
    assert (in_file.exit_code, in_object.exit_code, again.exit_code) == (0, 0, 1), in_object.output
    assert "exists; choose another --out" in again.output
    assert pq.read_table(tmp_path / "merged.parquet").equals(pq.read_table(whole))
    with open_object(out) as stream:
        assert pq.read_table(stream).equals(pq.read_table(whole))


def test_a_bucket_without_shards_is_one_line(bucket: str, tmp_path: Path) -> None:
    result = merged(f"{bucket}/none", tmp_path / "merged.parquet")
    assert (result.exit_code, result.output.count("\n")) == (1, 1)
    assert "holds no file of a shard" in result.output


def test_no_shard_is_replaced_by_the_merged_file_or_taken_for_another(shards: Path, tmp_path: Path) -> None:
    before = (shards / shard_name(0)).read_bytes()
    replacing = merged(shards, shards / shard_name(0), "--overwrite")
    shutil.copy(shards / shard_name(1), shards / "shard-00009-of-00005.parquet")
    strange = merged(shards, tmp_path / "o.parquet")

    assert (replacing.exit_code, strange.exit_code) == (1, 1)
    assert "has the name of a shard's file" in replacing.stderr
    assert "'shard-00009-of-00005.parquet', which is named like the file of a shard that cannot be" in strange.stderr
    assert (shards / shard_name(0)).read_bytes() == before


def test_a_whole_run_in_the_place_of_a_shard_is_named(shards: Path, whole: Path, tmp_path: Path) -> None:
    shutil.copy(whole, shards / shard_name(0))

    result = merged(shards, tmp_path / "o.parquet")

    assert result.exit_code == 1
    assert "it holds the rows of no shard, but of a whole run" in result.stderr
