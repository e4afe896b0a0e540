"""Predictions in CSV: the columns of the Parquet file, the record beside it, resuming, refusals, and other readers."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from batchcls.cli import main
from batchcls.engine.postprocess import to_predictions
from batchcls.errors import LabelsError, OutputError
from batchcls.predictions.existing_output import ExistingOutput
from batchcls.predictions.reader import PredictionsFile
from batchcls.predictions.writer import open_writer
from batchcls.records import BatchResult, Failure, Slide
from batchcls.storage.spreadsheet_cells import reversible_cell, text_of_cell
from tests.commandline import finished, invoked
from tests.conftest import draw
from tests.predictions.test_writer import LABELS, NOT_UTF8, ODD_NAMES, opened, slides, write, written

FORMULAS = ("=1+1.png", "-1.png", "@a.png", "'=b.png", "''+c.png", "\t.png", "'plain.png")
COLUMNS = [
    *("root", "path", "label", "probability", "p_a", "p_b", "p_c", "width", "height", "size_bytes", "modified", "error")
]


def as_csv_rows(path: Path, names: Sequence[str] = LABELS) -> list[dict[str, Any]]:
    """The rows of a Parquet file with the columns and names of a CSV file."""
    rows = []
    for row in pq.read_table(path).to_pylist():
        probabilities = row.pop("probabilities") or [None] * len(names)
        columns = list(row.items())
        at = [name for name, _ in columns].index("probability") + 1
        columns[at:at] = list(zip([f"p_{name}" for name in names], probabilities, strict=True))
        row = dict(columns)
        rows.append({**row, **{key: reversible_cell(row[key]) for key in ("root", "path")}})
    return rows


def with_pandas(path: Path) -> list[dict[str, Any]]:
    frame = pd.read_csv(path, parse_dates=["modified"], dtype=dict.fromkeys(("width", "height", "size_bytes"), "Int64"))
    return frame.astype(object).where(frame.notna(), None).to_dict("records")


def with_polars(path: Path) -> list[dict[str, Any]]:
    return pl.read_csv(path, try_parse_dates=True, infer_schema_length=None).to_dicts()


def with_duckdb(path: Path) -> list[dict[str, Any]]:
    found = duckdb.read_csv(str(path), sample_size=-1)
    return [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]


def with_csv(path: Path) -> list[dict[str, Any]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return [{key: text or None for key, text in row.items()} for row in csv.DictReader(stream, strict=True)]


def value(name: str, cell: Any) -> Any:
    """A cell of any reader as the Parquet file has it."""
    if cell is None or name in ("root", "path", "label", "error"):
        return cell
    if name == "modified":
        time = datetime.fromisoformat(str(cell).replace("NaT", "")) if not isinstance(cell, datetime) else cell
        return time.timestamp()
    return float(np.float32(cell)) if name.startswith("p") else int(cell)


def assert_same(rows: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert [list(row) for row in rows] == [list(row) for row in expected]
    for row, right in zip(rows, expected, strict=True):
        assert {name: value(name, row[name]) for name in row} == {name: value(name, right[name]) for name in right}


READERS = pytest.mark.parametrize("read", [with_pandas, with_polars, with_duckdb, with_csv])


@READERS
def test_every_reader_sees_the_rows_of_the_parquet_file(
    tmp_path: Path, read: Callable[[Path], list[dict[str, Any]]]
) -> None:
    odd = [Slide("slides", name) for name in (*ODD_NAMES, *NOT_UTF8, *FORMULAS, 'a,"b".png')]
    timed = [Slide("slides", f"t{number}.png", 12 << 40, 10**18 + number) for number in range(5)]
    chosen = [*slides(40), *odd, *timed]
    for name in ("o.parquet", "o.csv"):
        with closing(opened(tmp_path / name)) as output:
            write(output, chosen)
            output.finish({})

    rows = read(tmp_path / "o.csv")

    assert list(rows[0]) == COLUMNS
    assert_same(rows, as_csv_rows(tmp_path / "o.parquet"))


names = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12) | (
    st.lists(
        st.sampled_from([",", '"', "\n", "\r", "'", "=", "\udcff", "\\", "a", " ", "\t", ";", "#"]), min_size=1
    ).map("".join)
)


@settings(max_examples=40)
@given(names=st.sets(names, min_size=1, max_size=20))
def test_whatever_files_are_called_their_rows_are_read_back(names: set[str]) -> None:
    chosen = [Slide("slides", name) for name in names]
    with TemporaryDirectory() as folder:
        as_parquet, as_csv = Path(folder) / "o.parquet", Path(folder) / "o.csv"
        for path in (as_parquet, as_csv):
            with closing(opened(path)) as output:
                write(output, chosen)
                output.finish({"labels": LABELS})
        expected = as_csv_rows(as_parquet)

        assert_same(with_csv(as_csv), expected)
        assert [row["path"] for row in with_pandas_text(as_csv)] == [row["path"] for row in expected]
        ours, right = PredictionsFile.read(as_csv), PredictionsFile.read(as_parquet)
        assert ours.table.to_pylist() == right.table.to_pylist()
        assert (ours.probabilities == right.probabilities).all()
        (head, *parts) = PredictionsFile.parts(as_csv)
        assert len(head.table) == 0
        assert [row for part in parts for row in part.table.to_pylist()] == right.table.to_pylist()


def with_pandas_text(path: Path) -> list[dict[str, Any]]:
    return pd.read_csv(path, dtype=str, keep_default_na=False).to_dict("records")


@given(text=st.text() | st.text(st.sampled_from("'=+-@\t a")))
def test_a_cell_is_no_formula_and_its_text_comes_back(text: str) -> None:
    cell = reversible_cell(text)

    assert text_of_cell(cell) == text
    assert not cell.lstrip().startswith(tuple("=+-@\uff1d"))


def test_the_record_stands_beside_the_file_and_describes_it(tmp_path: Path) -> None:
    with closing(opened(tmp_path / "o.csv")) as output:
        write(output, slides(3))
        output.finish({"labels": ["é", os.fsdecode(b"\xff")], "counts": {"rows": 3}})

    record = json.loads((tmp_path / "o.csv.json").read_text())

    assert record["labels"] == ["é", os.fsdecode(b"\xff")]
    assert record["csv"]["bytes"] == (tmp_path / "o.csv").stat().st_size
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.csv", "o.csv.json"]


def test_a_label_with_a_comma_names_its_column(tmp_path: Path) -> None:
    labels = ("a, b", 'say "c"', "=d")
    with closing(opened(tmp_path / "o.csv", labels=labels)) as output:
        write(output, slides(9))
        output.finish({"labels": labels})

    assert list(with_csv(tmp_path / "o.csv")[0])[4:7] == [f"p_{label}" for label in labels]
    assert PredictionsFile.read(tmp_path / "o.csv").labels == labels


def test_a_run_goes_on_and_ends_in_the_same_bytes(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.csv", tmp_path / "cut.csv"
    for path, sizes in ((whole, [30]), (cut, [7, 11, 12])):
        for size in sizes:
            with closing(opened(path)) as output:
                write(output, list(output.missing(slides(30)))[:size])
                output.flush()
        with closing(opened(path)) as output:
            output.finish({})

    assert cut.read_bytes() == whole.read_bytes()


COUNTS = {"counts": {"rows": 4, "labels": {}, "errors": {"unreadable": 1}, "skipped": {}}}


def file_with_a_transient_error(path: Path) -> None:
    answers = to_predictions(np.eye(3, dtype=np.float32))
    with closing(opened(path)) as output:
        chosen = slides(4)
        output.write(
            BatchResult(chosen[:3], [(64, 48)] * 3, answers, [Failure(chosen[3], "unreadable", os.strerror(5))])
        )
        output.finish(COUNTS)


def test_a_row_that_may_be_read_another_day_is_classified_again_and_the_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "o.csv"
    file_with_a_transient_error(path)
    before = with_csv(path)

    with closing(opened(path)) as output:
        missing = list(output.missing(slides(4)))
        output.write(BatchResult(missing, [(5, 6)], to_predictions(np.ones((1, 3), np.float32))))
        output.finish({"counts": {"rows": 4, "labels": {}, "errors": {}, "skipped": {}}})

    assert missing == slides(4)[3:]
    after = with_csv(path)
    assert after[:3] == before[:3]
    assert (before[3]["error"], after[3]["error"], after[3]["width"]) == (f"unreadable: {os.strerror(5)}", None, "5")
    settled = open_writer(path, roots=["slides"], labels=LABELS, identity={"onnx_sha256": "12ab", "decoder": "dali"})
    assert isinstance(settled, ExistingOutput)


def test_a_file_that_was_changed_since_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "o.csv"
    file_with_a_transient_error(path)
    changed = path.read_bytes().replace(b"64,48", b"65,48")
    path.write_bytes(changed)

    with pytest.raises(OutputError, match="--overwrite"):
        opened(path)

    assert path.read_bytes() == changed


def test_a_strangers_json_beside_the_file_stays_unless_it_is_to_be_replaced(tmp_path: Path) -> None:
    path, beside = tmp_path / "o.csv", tmp_path / "o.csv.json"
    beside.write_text('{"my": "notes"}')

    with pytest.raises(OutputError, match=r"o.csv.json.*--overwrite"):
        opened(path)
    assert beside.read_text() == '{"my": "notes"}'
    with closing(opened(path, overwrite=True)) as output:
        write(output, slides(3))
        output.finish({})

    assert "identity" in json.loads(beside.read_text())


KILLED_AFTER_A_MOVE = """
import os, sys
from batchcls.storage.owned_folder import OwnedFolder

moves = int(sys.argv[2])
move = OwnedFolder.move_out

def move_and_die(self, name, to):
    global moves
    if not moves:
        os._exit(9)
    moves -= 1
    move(self, name, to)

OwnedFolder.move_out = move_and_die
from pathlib import Path
from tests.predictions.test_csv import file_with_a_transient_error
file_with_a_transient_error(Path(sys.argv[1]))
"""


@pytest.mark.parametrize("moves", [0, 1])
def test_a_kill_between_the_moves_of_the_two_files_is_mended_by_the_next_run(tmp_path: Path, moves: int) -> None:
    path = tmp_path / "o.csv"
    ended = subprocess.run([sys.executable, "-c", KILLED_AFTER_A_MOVE, path, str(moves)], check=False)
    assert ended.returncode == 9
    assert (path.exists(), (tmp_path / "o.csv.json").exists()) == (bool(moves), False)

    with closing(opened(path)) as output:
        assert len(list(output.missing(slides(4)))) == 1  # the row with an error that may be gone
        write(output, slides(4)[3:])
        output.finish(COUNTS)

    assert len(with_csv(path)) == 4
    assert sorted(item.name for item in tmp_path.iterdir()) == ["o.csv", "o.csv.json"]


@pytest.mark.parametrize(
    ("name", "said"), [("o.xlsx", "the ending '.xlsx'"), ("o.json", "'.json'"), ("o", "no ending")]
)
def test_an_ending_that_is_not_written_is_refused_with_those_that_are(tmp_path: Path, name: str, said: str) -> None:
    done = invoked(draw(tmp_path / "0.png"), "--out", tmp_path / name, "--engine", tmp_path / "no engine")

    assert done.exit_code == 1
    assert said in done.stderr
    assert str(tmp_path / "o.parquet") in done.stderr
    assert str(tmp_path / "o.csv") in done.stderr
    assert not (tmp_path / name).exists()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_engine: Path) -> Path:
    """A folder with ``o.parquet`` and ``o.csv``, each by a run of its own over the same images."""
    folder = tmp_path_factory.mktemp("runs")
    for number in range(12):
        draw(folder / "s" / "abc"[number % 3] / f"{number}, x.png", number)
    (folder / "s" / "broken.png").write_bytes(b"\x89PNG")
    for name in ("o.parquet", "o.csv"):
        done = finished(folder / "s", "--out", folder / name, "--engine", tiny_engine)
        assert done.returncode == 0, done.stderr
    return folder


def test_a_run_writes_the_same_rows_in_both_formats(runs: Path) -> None:
    assert_same(with_polars(runs / "o.csv"), as_csv_rows(runs / "o.parquet"))
    record = json.loads((runs / "o.csv.json").read_text())
    other = json.loads(pq.read_schema(runs / "o.parquet").metadata[b"batchcls"])
    assert record.keys() - {"csv"} == other.keys()
    assert {key: record[key] for key in ("identity", "labels", "counts", "engine")} == {
        key: other[key] for key in ("identity", "labels", "counts", "engine")
    }


def test_a_whole_csv_is_left_as_it_is(runs: Path, tiny_engine: Path) -> None:
    before = (runs / "o.csv").read_bytes()

    done = finished(runs / "s", "--out", runs / "o.csv", "--engine", tiny_engine)

    assert done.returncode == 0
    assert "is whole already" in done.stderr
    assert (runs / "o.csv").read_bytes() == before


@pytest.mark.parametrize("command", ["report", "evaluate"])
def test_pages_are_made_of_a_csv_file(runs: Path, tmp_path: Path, command: str) -> None:
    truth = ["--truth", runs / "s"] if command == "evaluate" else []
    shown = []
    for name in ("o.parquet", "o.csv"):
        arguments = [command, runs / name, *truth, "--out", tmp_path / f"{name} {command}"]
        done = CliRunner().invoke(main, list(map(str, arguments)))
        assert done.exit_code == 0, done.output
        shown.append([line for line in done.stdout.splitlines() if str(tmp_path) not in line and runs.name not in line])

    assert shown[0] == shown[1]


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "no columns of probabilities"),
        (b"a,b\n1,2\n", "no columns of probabilities"),
        (b"root,path,label,probability,p_a\n", "no column 'width'"),
        (b"root,root,p_a\n", "more than one column 'root'"),
        (b"PAR1\xff\xfe", "no predictions file"),
        (b"root,path,label,probability,p_a,p_b,width,height,error\nr,p,a,0.5,0.5,,1,1,\n", "some probabilities"),
        (b"root,path,label,probability,p_a,width,height,error\nr,p,a,x,0.5,1,1,\n", "invalid value 'x'"),
        (b"root,path,label,probability,p_a,width,height,error\nr,p,a,1\n", "Expected 8 columns"),
        (b"root,path,label,probability,p_a,width,height,error\n\xff,p,a,1,1,1,1,\n", "can't decode byte 0xff"),
        (b'"' + b"x" * 200_000, "no header"),
    ],
)
def test_another_csv_is_refused_in_a_line_that_says_why(tmp_path: Path, content: bytes, named: str) -> None:
    path = tmp_path / "o.csv"
    path.write_bytes(content)

    with pytest.raises(LabelsError) as refusal:
        PredictionsFile.read(path)

    assert named in str(refusal.value)
    assert str(path) in str(refusal.value)


def test_columns_that_a_spreadsheet_put_elsewhere_are_found_by_name(tmp_path: Path) -> None:
    path = tmp_path / "o.csv"
    written(tmp_path / "o.parquet", slides(20))
    with closing(opened(path)) as output:
        write(output, slides(20))
        output.finish({"labels": LABELS})
    frame = pd.read_csv(path)
    frame[[*reversed(frame.columns)]].assign(mine=1).to_csv(path, index=False)

    file = PredictionsFile.read(path)

    assert file.labels == ("c", "b", "a")
    right = PredictionsFile.read(tmp_path / "o.parquet", LABELS)
    assert (file.probabilities[:, ::-1] == right.probabilities)[right.readable].all()


WHOLE = b"""root,path,label,probability,p_a,p_b,width,height,size_bytes,modified,error
s,a.png,a,0.75,0.75,0.25,64,48,100,2026-11-26 13:47:41.216638Z,
"s","b, c.png",b,1,0,1,64,48,,,
s,d.png,,,,,,,0,2026-11-26 13:47:41.216638Z,empty: it has no bytes
"""
RECORD = b'{"labels": ["a", "b"], "identity": {}, "counts": {"rows": 3}, "csv": {"sha256": ""}}'
pieces = st.sampled_from([b"", b"\xff", b"\n", b",", b'"', b"'", b"=", b"1e999", b"nan", b"\0", b"p_a", b"[" * 2000])


@settings(max_examples=150)
@given(st.lists(st.tuples(st.integers(0, len(WHOLE)), st.integers(0, 9), pieces | st.binary(max_size=4)), max_size=3))
def test_a_damaged_csv_is_read_or_refused(edits: list[tuple[int, int, bytes]]) -> None:
    content, record = WHOLE, RECORD
    for place, length, piece in edits:
        content = content[:place] + piece + content[place + length :]
        record = record[: place % len(record)] + piece + record[place % len(record) + length :]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "o.csv"
        path.write_bytes(content)
        (Path(folder) / "o.csv.json").write_bytes(record)
        for read in (PredictionsFile.read, lambda path: list(PredictionsFile.parts(path))):
            with suppress(LabelsError):
                read(path)
        with suppress(OutputError):
            opened(path)


def test_a_csv_and_its_record_may_be_reached_through_links(runs: Path, tmp_path: Path) -> None:
    for name in ("o.csv", "o.csv.json"):
        (tmp_path / name).symlink_to(runs / name)

    file = PredictionsFile.read(tmp_path / "o.csv")

    assert file.metadata["engine"]["name"] == "tiny"
