"""Runs over lists and tables: their columns in the predictions, in each format, and whatever stops the run."""

import os
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batchcls
from batchcls.errors import EngineError
from batchcls.predictions.reader import PredictionsFile
from tests.commandline import finished, invoked
from tests.conftest import draw

COUNT = 40
PATIENTS = [None, *(f"P{number}" for number in range(2, COUNT)), "=1+1"]
DAYS = [date(2024, 1, 1 + number % 28) for number in range(COUNT)]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "slides"
    for number in range(COUNT):
        draw(folder / f"{number:02}.jpg", seed=number)
    (folder / "03.jpg").write_bytes(b"no image")
    return folder


@pytest.fixture
def table(images: Path) -> Path:
    columns = {"path": [f"{number:02}.jpg" for number in range(COUNT)], "patient": PATIENTS, "day": DAYS}
    pq.write_table(pa.table({**columns, "slide": pa.array(range(COUNT), pa.int16())}), images / "files.parquet")
    return images / "files.parquet"


def options(engine: Path, out: Path) -> list[str | Path]:
    return ["--engine", engine, "--backend", "null", "--out", out]


def with_pandas(path: Path) -> dict[str, list[Any]]:
    frame = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, parse_dates=["day"])
    return frame.astype({"day": "datetime64[s]"}).astype(object).where(frame.notna(), None).to_dict("list")  # type: ignore[return-value]


def with_polars(path: Path) -> dict[str, list[Any]]:
    read = pl.read_parquet if path.suffix == ".parquet" else lambda path: pl.read_csv(path, try_parse_dates=True)
    return read(path).to_dict(as_series=False)


def with_duckdb(path: Path) -> dict[str, list[Any]]:
    rows = duckdb.read_parquet(str(path)) if path.suffix == ".parquet" else duckdb.read_csv(str(path))
    return {name: list(column) for name, column in zip(rows.columns, zip(*rows.fetchall(), strict=True), strict=True)}


@pytest.mark.parametrize("read", [with_pandas, with_polars, with_duckdb])
@pytest.mark.parametrize(("ending", "processes"), [(".parquet", 2), (".csv", 1)])
def test_every_program_reads_the_columns_back(
    read: Callable[[Path], dict[str, list[Any]]],
    ending: str,
    processes: int,
    table: Path,
    tiny_engine: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / f"o{ending}"
    run = invoked(table, "--keep", "patient,slide,day", *options(tiny_engine, out), "--processes", str(processes))
    assert run.exit_code == 0, run.output

    columns = read(out)
    assert columns["path"] == [f"{number:02}.jpg" for number in range(COUNT)]
    formula = "=1+1" if ending == ".parquet" else "'=1+1"
    assert columns["patient"] == [*PATIENTS[:-1], formula]
    assert columns["slide"] == list(range(COUNT))
    assert [day if isinstance(day, date) and type(day) is date else day.date() for day in columns["day"]] == DAYS
    assert [name for name in columns if not name.startswith("p_")][-4:] == ["error", "patient", "slide", "day"]
    assert columns["error"][3].startswith("not an image")
    assert PredictionsFile.read(out).errors == {"not an image": 1}
    again = invoked(table, "--keep", "patient,slide,day", *options(tiny_engine, out))
    assert again.exit_code == 0
    assert "is whole already" in capfd.readouterr().err


def test_the_python_api_takes_the_same_words(table: Path, tiny_engine: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("slides/01.jpg\n/etc/hostname\n")
    stats = batchcls.run(
        [str(table), f"@{tmp_path / 'list.txt'}"],
        engine=tiny_engine,
        out=tmp_path / "o.parquet",
        backend="null",
        device="cpu",
        root=tmp_path,
        keep=["slide"],
    )
    rows = pq.read_table(tmp_path / "o.parquet").to_pylist()
    # Below --root, the table's paths name nothing.
    assert stats.errors == {"missing": COUNT, "unreadable": 1}
    assert [(row["path"], row["slide"]) for row in rows if row["label"]] == [("slides/01.jpg", None)]
    with pytest.raises(EngineError, match=r"keep is 'slide'; use a list"):
        batchcls.run(table, engine=tiny_engine, out=tmp_path / "x.parquet", keep="slide")


def test_a_list_through_standard_input_goes_on_where_it_was(images: Path, tiny_engine: Path, tmp_path: Path) -> None:
    names = sorted(os.listdir(images))
    arguments = ("-", *options(tiny_engine, Path("o.parquet")), "--processes", "2")
    first = finished(*arguments, "--root", "slides", input="\0".join(names[:10]), cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    more = finished(*arguments, "--root", "slides", input="\0".join(names), cwd=tmp_path)
    assert "is whole already" in more.stderr

    (tmp_path / "o.parquet").unlink()
    whole = finished(*arguments, input="".join(f"slides/{name}\n" for name in names), cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    rows = pq.read_table(tmp_path / "o.parquet")
    assert rows["path"].to_pylist() == [f"slides/{name}" for name in names]
    assert set(rows["root"].to_pylist()) == {"."}


def test_hostile_entries_are_a_row_each_and_nothing_is_read(images: Path, tiny_engine: Path, tmp_path: Path) -> None:
    os.mkfifo(images / "fifo.jpg")
    (images / "out.jpg").symlink_to("/etc/hostname")
    (images / "zero.jpg").symlink_to("/dev/zero")
    entries = ["00.jpg", "00.jpg", "gone.jpg", "../slides/01.jpg", "/etc/passwd", "/proc/self/environ", "/dev/zero"]
    entries += ["fifo.jpg", "out.jpg", "zero.jpg", "http://169.254.169.254/latest/meta-data", ".", "sub/", ""]
    entries += ["https://user:hunter2@host/a.jpg?token=hunter2"]
    (images / "list.txt").write_text("\n".join(entries))
    out = tmp_path / "o.csv"
    run = invoked(f"@{images / 'list.txt'}", *options(tiny_engine, out), "--allow-remote")
    assert run.exit_code == 0, run.output

    rows = {row["path"]: row["error"] for row in PredictionsFile.read(out).table.to_pylist()}
    assert len(rows) == len(entries) - 2  # one is doubled, and one is empty
    assert [path for path, error in rows.items() if error is None] == ["00.jpg"]
    assert rows["out.jpg"].startswith("unreadable: it is a link that leads out of")
    assert rows["zero.jpg"].startswith("unreadable: it is a link that leads out of")
    assert "no regular file" in rows["fifo.jpg"]
    assert rows["gone.jpg"].startswith("missing")
    assert "passed by empty line 1, listed already 1" in run.output
    assert "hunter2" not in out.read_text() + (tmp_path / "o.csv.json").read_text()
