"""Predictions in JSON Lines: valid JSON with the rows of the Parquet file, read back, resumed, and refused."""

import json
import math
import os
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from batchcls.cli import main
from batchcls.engine.postprocess import to_predictions
from batchcls.errors import LabelsError, OutputError
from batchcls.predictions.existing_output import ExistingOutput
from batchcls.predictions.formats import jsonl_file
from batchcls.predictions.reader import PredictionsFile
from batchcls.predictions.writer import open_writer
from batchcls.records import BatchResult, Failure, Slide
from tests.commandline import finished
from tests.conftest import draw
from tests.predictions.test_csv import COUNTS, file_with_a_transient_error, names
from tests.predictions.test_writer import IDENTITY, LABELS, NOT_UTF8, ODD_NAMES, opened, slides, write

KEYS = ["root", "path", "label", "probability", "probabilities", "width", "height", "size_bytes", "modified", "error"]


def refuse(constant: str) -> Any:
    raise AssertionError(f"{constant} is not JSON")


def with_json(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line, parse_constant=refuse) for line in path.read_text(encoding="utf-8").splitlines(True)]


def with_pandas(path: Path) -> list[dict[str, Any]]:
    frame = pd.read_json(path, lines=True, dtype=False, precise_float=True)
    return frame.astype(object).where(frame.notna(), None).to_dict("records")


def with_polars(path: Path) -> list[dict[str, Any]]:
    return pl.read_ndjson(path, infer_schema_length=None).to_dicts()


def with_duckdb(path: Path) -> list[dict[str, Any]]:
    found = duckdb.execute("select * from read_json_auto(?)", [str(path)])
    columns = [column[0] for column in found.description]
    return [dict(zip(columns, row, strict=True)) for row in found.fetchall()]


def as_in_parquet(row: dict[str, Any]) -> dict[str, Any]:
    """A row of any reader as the Parquet file has it."""
    single = {**row, "probability": None if row["probability"] is None else float(np.float32(row["probability"]))}
    if row["probabilities"] is not None:
        assert list(row["probabilities"]) == list(LABELS)
        single["probabilities"] = [float(np.float32(value)) for value in row["probabilities"].values()]
    if isinstance(row["modified"], str):
        single["modified"] = datetime.fromisoformat(row["modified"])
    return single


def both(folder: Path, chosen: list[Slide], **record: Any) -> tuple[Path, list[dict[str, Any]]]:
    """The file in JSON Lines, and the rows of the Parquet file."""
    for name in ("o.parquet", "o.jsonl"):
        with closing(opened(folder / name)) as output:
            write(output, chosen)
            output.finish(record)
    return folder / "o.jsonl", pq.read_table(folder / "o.parquet").to_pylist()


@pytest.mark.parametrize("read", [with_json, with_pandas, with_polars, with_duckdb])
def test_every_reader_sees_the_rows_of_the_parquet_file(
    tmp_path: Path, read: Callable[[Path], list[dict[str, Any]]]
) -> None:
    odd = [Slide("slides", name) for name in (*ODD_NAMES, *NOT_UTF8, 'a,"b".png', "\u2028\x7f\x1f.png")]
    timed = [Slide("slides", f"t{number}.png", 12 << 40, 10**18 + number) for number in range(5)]
    path, expected = both(tmp_path, [*slides(40), *odd, *timed])

    rows = read(path)

    assert [list(row) for row in rows] == [KEYS] * len(rows)
    assert list(map(as_in_parquet, rows)) == expected


@settings(max_examples=40)
@given(names=st.sets(names, min_size=1, max_size=20))
def test_whatever_files_are_called_their_rows_are_read_back(names: set[str]) -> None:
    with TemporaryDirectory() as folder:
        path, expected = both(Path(folder), [Slide("slides", name) for name in names], labels=LABELS)

        assert list(map(as_in_parquet, with_json(path))) == expected
        ours, right = PredictionsFile.read(path), PredictionsFile.read(path.with_suffix(".parquet"))
        assert ours.table.to_pylist() == right.table.to_pylist()
        assert ours.labels == right.labels
        (head, *parts) = PredictionsFile.parts(path)
        assert len(head.table) == 0
        assert [row for part in parts for row in part.table.to_pylist()] == right.table.to_pylist()


@given(values=st.lists(st.floats(width=32), min_size=1))
def test_a_number_comes_back_bit_for_bit_and_what_is_none_is_null(values: list[float]) -> None:
    texts = jsonl_file._json_values(pa.array(values, pa.float32())).to_pylist()

    for value, text in zip(values, texts, strict=True):
        json.loads(text, parse_constant=refuse)
        same = text != "null" and np.float32(text).tobytes() == np.float32(value).tobytes()
        assert same if math.isfinite(value) else text == "null"


def test_the_record_stands_beside_the_file_and_describes_it(tmp_path: Path) -> None:
    path, _ = both(tmp_path, slides(3), labels=["é", os.fsdecode(b"\xff")])

    record = json.loads((tmp_path / "o.jsonl.json").read_text())

    assert record["labels"] == ["é", os.fsdecode(b"\xff")]
    assert record["jsonl"]["bytes"] == path.stat().st_size


def test_labels_of_any_text_name_their_probabilities(tmp_path: Path) -> None:
    labels = ("a, b", 'say "c"', "line\nbreak")
    with closing(opened(tmp_path / "o.jsonl", labels=labels)) as output:
        write(output, slides(9))
        output.finish({})

    assert {tuple(row["probabilities"]) for row in with_json(tmp_path / "o.jsonl") if row["label"]} == {labels}
    assert PredictionsFile.read(tmp_path / "o.jsonl").labels == labels


def test_a_row_that_may_be_read_another_day_is_classified_again_and_the_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "o.jsonl"
    file_with_a_transient_error(path)
    before = with_json(path)

    with closing(opened(path)) as output:
        missing = list(output.missing(slides(4)))
        output.write(BatchResult(missing, [(5, 6)], to_predictions(np.ones((1, 3), np.float32))))
        output.finish(COUNTS)

    assert missing == slides(4)[3:]
    after = with_json(path)
    assert after[:3] == before[:3]
    assert (before[3]["error"], after[3]["error"], after[3]["width"]) == (f"unreadable: {os.strerror(5)}", None, 5)


def test_a_file_of_errors_alone_is_still_the_file_of_its_run(tmp_path: Path) -> None:
    failures = [Failure(slide, "corrupt", "it ends early") for slide in slides(3)]
    nothing = BatchResult([], [], to_predictions(np.empty((0, 3), np.float32)), failures)
    counts = {"rows": 3, "labels": {}, "errors": {"corrupt": 3}, "skipped": {}}
    with closing(opened(tmp_path / "o.jsonl")) as output:
        output.write(nothing)
        output.finish({"labels": LABELS, "counts": counts})

    again = open_writer(tmp_path / "o.jsonl", roots=["slides"], labels=LABELS, identity=IDENTITY)

    assert isinstance(again, ExistingOutput)
    assert PredictionsFile.read(tmp_path / "o.jsonl").errors == {"corrupt": 3}


def test_a_file_that_was_changed_since_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "o.jsonl"
    file_with_a_transient_error(path)
    changed = path.read_bytes().replace(b'"width": 64', b'"width": 65')
    path.write_bytes(changed)

    with pytest.raises(OutputError, match="--overwrite"):
        opened(path)

    assert path.read_bytes() == changed


def test_a_file_that_another_program_wrote_again_is_read(tmp_path: Path) -> None:
    path, _ = both(tmp_path, slides(20), labels=LABELS)
    frame = pd.read_json(path, lines=True, dtype=False, precise_float=True)
    frame[[*reversed(frame.columns)]].assign(mine=1).to_json(path, orient="records", lines=True, double_precision=15)
    (tmp_path / "o.jsonl.json").unlink()

    file = PredictionsFile.read(path)

    right = PredictionsFile.read(tmp_path / "o.parquet", LABELS)
    assert file.labels == LABELS
    assert np.allclose(file.probabilities[right.readable], right.probabilities[right.readable], atol=1e-7)
    assert file.table["width"].equals(right.table["width"])


def test_pages_are_made_of_it(tmp_path: Path, tiny_engine: Path) -> None:
    for number in range(12):
        draw(tmp_path / "s" / "abc"[number % 3] / f"{number}, x.png", number)
    (tmp_path / "s" / "broken.png").write_bytes(b"\x89PNG")
    shown = []
    for name in ("o.parquet", "o.jsonl"):
        done = finished(tmp_path / "s", "--out", tmp_path / name, "--engine", tiny_engine)
        assert done.returncode == 0, done.stderr
        for command, truth in (("report", []), ("evaluate", ["--truth", tmp_path / "s"])):
            out = tmp_path / f"{name} {command}"
            said = CliRunner().invoke(main, list(map(str, [command, tmp_path / name, *truth, "--out", out])))
            assert said.exit_code == 0, said.output
            shown.append([line for line in said.stdout.splitlines() if name not in line])

    assert shown[:2] == shown[2:]


LINE = b'{"root":"r","path":"p","label":"a","probability":1,"probabilities":{"a":1},"width":1,"height":1,"error":null}'


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"{}", "no column 'root'"),
        (b"[1]\n", "line 1 is no object"),
        (b"PAR1\xff\xfe", "line 1 is no JSON"),
        (b"[" * 100_000, "line 1 is no JSON"),
        (LINE + b"\n" + b"{}\n" * 100_000, "too short to be rows"),
        (LINE.replace(b'{"a":1}', b'{"a":1,"b":null}') + b"\n", "some probabilities"),
        (LINE + b"\n" + LINE.replace(b'"width":1', b'"width":"1"') + b"\n", "changed from number to string"),
        (LINE + b"\n" + LINE.replace(b'{"a":1}', b"[1]"), "changed from object to array"),
        (LINE + b"\n" + LINE[:-1], "Missing a comma"),
        (LINE.replace(b'"p"', b'"\xff"'), "no JSON"),
        (LINE.replace(b'"r"', b"null"), "rows that name no file"),
    ],
)
def test_another_file_is_refused_in_a_line_that_says_why(tmp_path: Path, content: bytes, named: str) -> None:
    path = tmp_path / "o.jsonl"
    path.write_bytes(content)

    with pytest.raises(LabelsError) as refusal:
        PredictionsFile.read(path)

    assert named in str(refusal.value)
    assert str(path) in str(refusal.value)


WHOLE = b"\n".join([LINE, LINE.replace(b'"p"', b'"q"'), LINE.replace(b'{"a":1}', b"null"), b""])
pieces = st.sampled_from([b"", b"\xff", b"\n", b",", b'"', b"{", b"}", b"null", b"1e999", b"NaN", b"\0", b"[" * 2000])


@settings(max_examples=150)
@given(st.lists(st.tuples(st.integers(0, len(WHOLE)), st.integers(0, 9), pieces | st.binary(max_size=4)), max_size=3))
def test_a_damaged_file_is_read_or_refused(edits: list[tuple[int, int, bytes]]) -> None:
    content = WHOLE
    for place, length, piece in edits:
        content = content[:place] + piece + content[place + length :]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "o.jsonl"
        path.write_bytes(content)
        for read in (PredictionsFile.read, lambda path: list(PredictionsFile.parts(path))):
            with suppress(LabelsError):
                read(path)
        with suppress(OutputError):
            opened(path)
