"""Predictions folders: the rows of one file in files of a few, at once and whole, and nobody else's files touched."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import batchcls
from batchcls.cli import main
from batchcls.engine.postprocess import to_predictions
from batchcls.errors import OutputError
from batchcls.predictions.existing_output import ExistingOutput
from batchcls.predictions.reader import PredictionsFile
from batchcls.predictions.writer import PredictionsWriter, open_writer
from batchcls.records import BatchResult, Failure, Slide
from tests.commandline import PATIENCE_S, finished, invoked
from tests.conftest import ROOT, draw
from tests.predictions.test_writer import IDENTITY, LABELS, opened, slides, write


def counts(rows: int, **errors: int) -> dict[str, Any]:
    return {"labels": LABELS, "counts": {"rows": rows, "labels": {}, "errors": errors, "skipped": {}}}


def folder(path: Path, most: int, **changed: Any) -> PredictionsWriter:
    return opened(path, **{"identity": {**IDENTITY, "rows_per_file": most}, **changed})


def write_all(path: Path, most: int, chosen: Sequence[Slide], **changed: Any) -> None:
    with closing(folder(path, most, **changed)) as output:
        write(output, list(output.missing(chosen)))
        output.finish(counts(len(chosen)))


def one_file(path: Path, chosen: Sequence[Slide]) -> pa.Table:
    with closing(opened(path)) as output:
        write(output, chosen)
        output.finish({})
    return pq.read_table(path)


@settings(max_examples=25)
@given(rows=st.integers(1, 40), most=st.integers(1, 45), kept=st.integers(0, 40))
def test_the_files_together_are_the_one_file(rows: int, most: int, kept: int) -> None:
    with TemporaryDirectory() as name:
        whole, preds = one_file(Path(name) / "o.parquet", slides(rows)), Path(name) / "preds"
        with closing(folder(preds, most)) as output:
            write(output, slides(rows)[:kept])
            output.flush()
        write_all(preds, most, slides(rows))

        tables = [pq.read_table(path) for path in sorted(preds.iterdir())]
        assert [path.name for path in sorted(preds.iterdir())] == [f"part-{n:05d}.parquet" for n in range(len(tables))]
        assert [len(table) for table in tables[:-1]] == [most] * (len(tables) - 1)
        assert pa.concat_tables(tables).to_pylist() == whole.to_pylist()
        assert not (Path(name) / "preds.partial").exists()


def test_every_file_has_the_schema_and_the_record(tmp_path: Path) -> None:
    write_all(tmp_path / "preds", 10, slides(25))

    schemas = [pq.read_schema(path) for path in sorted((tmp_path / "preds").iterdir())]

    assert all(schema.equals(schemas[0], check_metadata=True) for schema in schemas)
    assert json.loads(schemas[2].metadata[b"batchcls"])["counts"]["rows"] == 25


def test_other_programs_read_the_folder_as_one_table(tmp_path: Path) -> None:
    whole = one_file(tmp_path / "o.parquet", slides(25)).to_pylist()
    write_all(tmp_path / "preds", 10, slides(25))

    with_duckdb = duckdb.execute("select path, label from read_parquet(?)", [f"{tmp_path}/preds/*.parquet"]).fetchall()
    with_polars = pl.read_parquet(tmp_path / "preds").to_dicts()
    with_arrow = ds.dataset(tmp_path / "preds").to_table().to_pylist()

    assert with_duckdb == [(row["path"], row["label"]) for row in whole]
    assert with_polars == with_arrow == whole


def test_a_whole_folder_is_not_written_again_and_no_other_run_replaces_it(tmp_path: Path) -> None:
    preds = tmp_path / "preds"
    write_all(preds, 10, slides(25))
    before = {path: path.stat().st_mtime_ns for path in preds.iterdir()}

    same = open_writer(preds, roots=["slides"], labels=LABELS, identity={**IDENTITY, "rows_per_file": 10})
    with pytest.raises(OutputError, match="rows_per_file 10; this run has rows_per_file 11"):
        folder(preds, 11)

    assert isinstance(same, ExistingOutput)
    assert {path: path.stat().st_mtime_ns for path in preds.iterdir()} == before


@pytest.mark.parametrize("change", ["remove", "shorten"])
def test_a_folder_that_lacks_a_file_or_rows_is_not_taken_for_whole(tmp_path: Path, change: str) -> None:
    preds = tmp_path / "preds"
    write_all(preds, 10, slides(25))
    if change == "remove":
        (preds / "part-00001.parquet").unlink()
    else:
        pq.write_table(pq.read_table(preds / "part-00001.parquet").slice(1), preds / "part-00001.parquet")

    with pytest.raises(OutputError, match=r"exists; choose another --out, or replace it with --overwrite"):
        folder(preds, 10)
    write_all(preds, 20, slides(30), overwrite=True)

    assert [len(pq.read_table(path)) for path in sorted(preds.iterdir())] == [20, 10]


def test_rows_that_are_worth_doing_again_are_done_and_the_others_taken_over(tmp_path: Path) -> None:
    preds = tmp_path / "preds"
    answers = to_predictions(np.eye(3, dtype=np.float32))
    failure = Failure(slides(4)[3], "unreadable", os.strerror(5))
    with closing(folder(preds, 3)) as output:
        output.write(BatchResult(slides(3), [(64, 48)] * 3, answers, [failure]))
        output.finish(counts(4, unreadable=1))
    before = pq.read_table(preds).to_pylist()

    with closing(folder(preds, 3)) as output:
        missing = list(output.missing(slides(4)))
        output.write(BatchResult(missing, [(5, 6)], to_predictions(np.ones((1, 3), np.float32))))
        output.finish(counts(4))

    assert missing == slides(4)[3:]
    after = pq.read_table(preds).to_pylist()
    assert after[:3] == before[:3]
    assert after[3]["error"] is None


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", ["notes", "pandas", "folder", "link", "file"])
def test_what_batchcls_did_not_write_is_never_touched(tmp_path: Path, kind: str, overwrite: bool) -> None:
    preds, other = tmp_path / "preds", tmp_path / "other"
    write_all(other, 10, slides(25))
    if kind == "file":
        preds.write_text("mine")
    elif kind == "link":
        preds.symlink_to(other)
    else:
        preds.mkdir()
        if kind == "notes":
            (preds / "part-00000.parquet").write_bytes((other / "part-00000.parquet").read_bytes())
            (preds / "notes.txt").write_text("mine")
        elif kind == "pandas":
            pq.write_table(pa.table({"mine": [1]}), preds / "part-00000.parquet")
        else:
            (preds / "part-00000.parquet").mkdir()
    before = sorted(tmp_path.rglob("*"))

    with pytest.raises(OutputError, match=r"choose another --out"):
        folder(preds, 10, overwrite=overwrite)

    assert sorted(tmp_path.rglob("*")) == before


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "preds").mkdir()

    write_all(tmp_path / "preds", 10, slides(25))

    assert len(list((tmp_path / "preds").iterdir())) == 3


def test_what_comes_into_the_folder_while_it_is_replaced_is_kept(tmp_path: Path) -> None:
    preds = tmp_path / "preds"
    write_all(preds, 10, slides(25))
    with closing(folder(preds, 20, overwrite=True)) as output:
        write(output, slides(25))
        output.flush()
        (preds / "notes.txt").write_text("mine")
        with pytest.raises(OutputError, match=r"notes.txt.*move it away"):
            output.finish(counts(25))
    assert (preds / "notes.txt").read_text() == "mine"
    assert len(list(preds.iterdir())) == 4

    (preds / "notes.txt").rename(tmp_path / "notes.txt")
    write_all(preds, 20, slides(25), overwrite=True)

    assert [len(pq.read_table(path)) for path in sorted(preds.iterdir())] == [20, 5]


KILLED_AT_EACH_STEP = """
import os, signal, sys
from pathlib import Path
from tests.predictions.test_folder import slides, write_all

STEPS = {"open", "os.mkdir", "os.remove", "os.rename", "os.rmdir"}
left = 0

def count(event, arguments):
    global left
    if left and event in STEPS:
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(count)
scratch, replaces, step, last = Path(sys.argv[1]), sys.argv[2] == "replaces", 0, 0
while last == 0 or os.WIFSIGNALED(last):
    step += 1
    child = os.fork()
    if not child:
        preds = scratch / str(step) / "preds"
        preds.parent.mkdir()
        if replaces:
            write_all(preds, 5, slides(20), identity={"decoder": "another", "rows_per_file": 5})
        left = step
        write_all(preds, 8, slides(20), overwrite=replaces)
        os._exit(77)
    last = os.waitpid(child, 0)[1]
sys.exit(os.waitstatus_to_exitcode(last) != 77)
"""


@pytest.mark.parametrize("kind", ["new", "replaces"])
def test_wherever_it_is_killed_the_same_call_goes_on(tmp_path: Path, kind: str) -> None:
    whole = one_file(tmp_path / "o.parquet", slides(20)).to_pylist()
    scratch = tmp_path / "killed"
    scratch.mkdir()
    command = [sys.executable, "-c", KILLED_AT_EACH_STEP, scratch, kind]
    subprocess.run(command, check=True, timeout=PATIENCE_S, cwd=ROOT)

    killed = sorted(scratch.iterdir())
    assert len(killed) > 20
    for place in killed:
        preds = place / "preds"
        if preds.exists():  # never a part of the files
            assert [len(pq.read_table(file)) for file in sorted(preds.iterdir())] in ([8, 8, 4], [5] * 4)
        overwrite = kind == "replaces"
        output = open_writer(
            preds,
            roots=["slides"],
            labels=LABELS,
            identity={**IDENTITY, "rows_per_file": 8},
            overwrite=overwrite,
        )
        if isinstance(output, PredictionsWriter):
            with closing(output):
                write(output, list(output.missing(slides(20))))
                output.finish(counts(20))
        assert pq.read_table(preds).to_pylist() == whole
        assert [path.name for path in place.iterdir()] == ["preds"]


def test_a_replaced_folder_that_was_moved_away_already_is_followed_by_the_new_one(tmp_path: Path) -> None:
    """A kill between the two moves leaves no folder in its place; the next run completes the move."""
    preds, script = tmp_path / "preds", KILLED_AT_EACH_STEP.partition("scratch, replaces")[0]
    write_all(preds, 5, slides(20), identity={"decoder": "another", "rows_per_file": 5})
    script += f"""
rename = os.rename
def renamed(source, target, **folders):
    rename(source, target, **folders)
    if str(target).endswith("replaced"):
        os.kill(os.getpid(), signal.SIGKILL)
os.rename = renamed
write_all(Path({str(preds)!r}), 8, slides(20), overwrite=True)
"""
    killed = subprocess.run([sys.executable, "-c", script], check=False, timeout=PATIENCE_S, cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL
    assert not preds.exists()

    again = open_writer(preds, roots=["slides"], labels=LABELS, identity={**IDENTITY, "rows_per_file": 8})

    assert isinstance(again, ExistingOutput)
    assert len(list(preds.iterdir())) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["preds"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("images")
    for number in range(12):
        draw(place / "s" / "abc"[number % 3] / f"{number}.png", number, (16, 12))
    (place / "s" / "broken.png").write_bytes(b"\x89PNG")
    return place / "s"


@pytest.mark.parametrize("command", ["report", "evaluate"])
def test_pages_are_made_of_a_folder(images: Path, tiny_engine: Path, tmp_path: Path, command: str) -> None:
    truth = ["--truth", images] if command == "evaluate" else []
    shown = []
    for name, options in (("one.parquet", []), ("preds", ["--rows-per-file", "5"])):
        done = finished(images, "--out", tmp_path / name, "--engine", tiny_engine, *options)
        assert done.returncode == 0, done.stderr
        out = tmp_path / f"{name} {command}"
        said = CliRunner().invoke(main, list(map(str, [command, tmp_path / name, *truth, "--out", out])))
        assert said.exit_code == 0, said.output
        shown.append([line for line in said.stdout.splitlines() if name not in line])

    assert shown[0] == shown[1]
    first, second = (PredictionsFile.read(tmp_path / name).table.to_pylist() for name in ("one.parquet", "preds"))
    assert first == second


def test_a_slash_names_a_folder_with_files_of_a_million_rows(images: Path, tiny_engine: Path, tmp_path: Path) -> None:
    first = invoked(images, "--out", f"{tmp_path}/preds/", "--engine", tiny_engine)
    again = finished(images, "--out", tmp_path / "preds", "--engine", tiny_engine)
    stats = batchcls.run(images, engine=tiny_engine, out=f"{tmp_path}/api/", device="cpu")

    assert (first.exit_code, again.returncode, stats.rows) == (0, 0, 13)
    assert "is whole already" in again.stderr
    for name in ("preds", "api"):
        assert [path.name for path in (tmp_path / name).iterdir()] == ["part-00000.parquet"]
        record = json.loads(pq.read_schema(tmp_path / name / "part-00000.parquet").metadata[b"batchcls"])
        assert record["identity"]["rows_per_file"] == 1_000_000


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--out", "p.parquet", "--rows-per-file", "5"), "makes a folder of Parquet files: name it 'p/'"),
        (("--out", "p.csv/"), "makes a folder of Parquet files: name it 'p/'"),
        (("--out", "p", "--rows-per-file", "5", "--shard", "0/2"), "leave out --rows-per-file"),
        (("--out", "s3://b/p/"), "name one object, such as 's3://b/p.parquet'"),
        (("--out", "p", "--rows-per-file", "0"), "0 is not in the range"),
    ],
)
def test_what_cannot_be_a_folder_is_refused_in_a_line(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)

    done = invoked(images, "--engine", tmp_path / "no engine", *arguments)

    assert done.exit_code in (1, 2)
    assert said in done.stderr
    assert list(tmp_path.iterdir()) == []
