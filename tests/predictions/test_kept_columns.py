"""Columns that a run carries over from a table: their values in Parquet and CSV, after a resume, and after errors."""

import errno
import os
from contextlib import closing
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchcls.engine.postprocess import to_predictions
from batchcls.errors import LabelsError, OutputError, SlidesError
from batchcls.predictions.existing_output import ExistingOutput
from batchcls.predictions.reader import PredictionsFile
from batchcls.predictions.schema import KEPT_TYPES, check_kept, file_schema, kept_identity, kept_schema
from batchcls.predictions.writer import open_writer
from batchcls.records import BatchResult, Failure, Slide
from batchcls.storage.column_values import exact_values
from tests.predictions.test_writer import IDENTITY, LABELS, opened, write

ALL_KINDS = pa.schema([(f"kept {number}", kind) for number, kind in enumerate(KEPT_TYPES.values())])
TEXTS = ("", "-", "=1+1", "'", "'=x", "07", "NA", "null", "a,b", 'a"b', "two\nlines", "µ", "1.0")


def value_of(kind: pa.DataType) -> st.SearchStrategy[Any]:
    """Values as a slide carries them."""
    if pa.types.is_integer(kind):
        top = 1 << (kind.bit_width - pa.types.is_signed_integer(kind))
        return st.integers(-top if pa.types.is_signed_integer(kind) else 0, top - 1)
    if pa.types.is_floating(kind):
        return st.floats(width=kind.bit_width, allow_nan=False, allow_infinity=False)
    if pa.types.is_boolean(kind):
        return st.booleans()
    if pa.types.is_date(kind):
        return st.integers(-100_000, 100_000)
    if pa.types.is_timestamp(kind):
        day = {"ms": 86_400_000, "us": 86_400 * 10**6, "ns": 86_400 * 10**9}[kind.unit]
        return st.integers(-10_000 * day, 10_000 * day)
    return st.sampled_from(TEXTS) | st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"))


ROWS = st.lists(st.tuples(*(st.none() | value_of(field.type) for field in ALL_KINDS)), min_size=1, max_size=5)


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".jsonl"])
@given(rows=ROWS)
def test_values_of_every_type_are_those_of_the_table(ending: str, rows: list[tuple[Any, ...]]) -> None:
    slides = [Slide("slides", f"{number}.png", kept=values) for number, values in enumerate(rows)]
    identity = {**IDENTITY, **kept_identity(ALL_KINDS)}
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"o{ending}"
        with closing(opened(path, identity=identity)) as output:
            write(output, slides)
            output.finish({"counts": {"rows": len(rows), "labels": {}, "errors": {}, "skipped": {}}})

        existing = ExistingOutput.of(path, file_schema(len(LABELS), ALL_KINDS), identity)
        assert existing
        whole = pa.Table.from_batches(list(existing.batches(ALL_KINDS.names)))
        assert whole.schema.types == ALL_KINDS.types
        assert list(zip(*(exact_values(whole[name]) for name in ALL_KINDS.names), strict=True)) == rows


def test_a_resumed_run_and_one_that_repeats_errors_keep_the_columns(tmp_path: Path) -> None:
    kept = pa.schema([("patient", pa.string()), ("taken", pa.date32()), ("seen", pa.timestamp("ns"))])
    slides = [
        Slide("slides", f"{number}.png", kept=(f"P{number}", 20_000 + number, 10**18 + number)) for number in range(6)
    ]
    options: dict[str, Any] = {"labels": LABELS, "identity": {**IDENTITY, **kept_identity(kept)}}
    with closing(opened(tmp_path / "o.parquet", **options)) as output:
        write(output, slides[:3])
        output.flush()
    with closing(opened(tmp_path / "o.parquet", **options)) as output:
        assert list(output.missing(slides)) == slides[3:]
        write(output, slides[3:5])
        no_answer = Failure(slides[5], "unreadable", os.strerror(errno.EIO))
        output.write(BatchResult([], [], to_predictions(np.zeros((0, 3), np.float32)), [no_answer]))
        output.finish({"counts": {"rows": 6, "labels": {}, "errors": {"unreadable": 1}, "skipped": {}}})
    with closing(opened(tmp_path / "o.parquet", **options)) as output:
        (listed,) = output.missing([*slides[:5], replace(slides[5], within="slides", refusal="it may not be read")])
        assert (listed.within, listed.refusal) == ("slides", "it may not be read")
        (again,) = output.missing([])  # whether it is listed or not
        assert again.kept == slides[5].kept
        write(output, [again])
        output.finish({})

    rows = pq.read_table(tmp_path / "o.parquet")
    assert rows["patient"].to_pylist() == [f"P{number}" for number in range(6)]
    assert exact_values(rows["taken"]) == [20_000 + number for number in range(6)]
    assert exact_values(rows["seen"]) == [10**18 + number for number in range(6)]


def test_slides_of_a_folder_beside_a_table_have_nothing_in_the_columns(tmp_path: Path) -> None:
    identity = {**IDENTITY, **kept_identity(pa.schema([("slide", pa.int64())]))}
    with closing(opened(tmp_path / "o.parquet", identity=identity)) as output:
        write(output, [Slide("slides", "a.png", kept=(7,)), Slide("slides", "b.png")])
        output.finish({"labels": LABELS})

    assert pq.read_table(tmp_path / "o.parquet")["slide"].to_pylist() == [7, None]
    assert PredictionsFile.read(tmp_path / "o.parquet").table.num_rows == 2


def test_a_run_with_other_columns_is_another_run(tmp_path: Path) -> None:
    kept = pa.schema([("patient", pa.string())])
    with closing(opened(tmp_path / "o.parquet", identity={**IDENTITY, **kept_identity(kept)})) as output:
        write(output, [Slide("slides", "a.png", kept=("P",))])
    with pytest.raises(OutputError, match=r"was begun with kept \[\['patient', 'string'\]\], this run has kept None"):
        open_writer(tmp_path / "o.parquet", roots=["slides"], labels=LABELS, identity=IDENTITY)


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("path", pa.string(), "columns of their own by this name"),
        ("Label", pa.string(), "columns of their own by this name"),
        ("p_value", pa.float64(), "columns of their own by this name"),
        ("=1+1", pa.string(), "a spreadsheet could run this name"),
        ("", pa.string(), "a spreadsheet could run this name"),
        ("cells", pa.list_(pa.int8()), "the column holds list<item: int8>"),
        ("share", pa.decimal128(5, 2), r"the column holds decimal128\(5, 2\)"),
    ],
)
def test_names_of_our_own_and_types_that_csv_has_not_are_refused(name: str, kind: pa.DataType, message: str) -> None:
    with pytest.raises(SlidesError, match=message):
        check_kept(pa.schema([(name, kind)]))
    with pytest.raises(SlidesError, match="name each column once"):
        check_kept(pa.schema([("a", pa.int8()), ("A", pa.int8())]))


@pytest.mark.parametrize("kept", [1, [["a"]], [["a", "no type"]], [[1, []]], {"a": "b"}, None])
def test_a_damaged_record_is_one_line(kept: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="columns of no known type"):
        kept_schema({"kept": kept})
    (tmp_path / "o.csv").write_text("root,path,label,probability,p_a,width,height,error\n")
    (tmp_path / "o.csv.json").write_text(
        f'{{"identity": {{"kept": {str(kept).replace("None", "null")}}}}}'.replace("'", '"')
    )
    with pytest.raises(LabelsError, match="columns of no known type"):
        PredictionsFile.read(tmp_path / "o.csv")


def test_other_programs_read_dates_and_times_from_csv(tmp_path: Path) -> None:
    kept = pa.schema([("day", pa.date32()), ("at", pa.timestamp("us", "UTC")), ("fresh", pa.bool_())])
    day, at = date(2024, 2, 29), datetime(2024, 2, 29, 23, 59, 59, 123_456, UTC)
    with closing(opened(tmp_path / "o.csv", identity={**IDENTITY, **kept_identity(kept)})) as output:
        write(output, [Slide("slides", "a.png", kept=(day, at, True))])
        output.finish({})
    assert (tmp_path / "o.csv").read_text().rstrip().endswith("2024-02-29,2024-02-29 23:59:59.123456Z,true")
