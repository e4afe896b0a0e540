"""Columns that only some runs write are read where they are asked for and there, and nowhere else."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchcls.errors import LabelsError
from batchcls.predictions.formats import format_to_write
from batchcls.predictions.reader import PredictionsFile
from batchcls.predictions.schema import OPTIONAL
from batchcls.records import METADATA_KEY
from batchcls.storage.output_names import beside_path
from tests.evaluation.test_evaluate import LABELS, predictions_file, rows_and_truth

ROWS = 6
COLUMNS = pa.table(
    {
        "novelty": pa.array([0.5, None, 0.25, 0.995, 0, 1], pa.float32()),
        "novel": pa.array([False, None, False, True, None, True]),
        "measures": pa.array([[1, 2, 3], None, *[[4, None, 6]] * 4], pa.list_(pa.float32(), 3)),
        "labels_set": pa.array([["Pro"], None, ["Pro", "Pre"], None, [], None], pa.list_(pa.string())),
        "embedding": pa.array([[0.5, 1], None, *[[2, 3]] * 4], pa.list_(pa.float16(), 2)),
    }
)


def with_columns(path: Path, columns: pa.Table = COLUMNS, identity: Mapping[str, Any] | None = None) -> Path:
    """A predictions file of six rows, with more columns."""
    table = pq.read_table(predictions_file(path, rows_and_truth(ROWS)[0]))
    record = json.loads(table.schema.metadata[METADATA_KEY]) | {"identity": identity or {}}
    for name, column in zip(columns.column_names, columns.columns, strict=True):
        table = table.append_column(name, column)
    pq.write_table(table.replace_schema_metadata({METADATA_KEY: json.dumps(record)}), path, row_group_size=4)
    return path


def check_values(file: PredictionsFile) -> None:
    np.testing.assert_array_equal(file.numbers("novelty"), np.array([0.5, np.nan, 0.25, 0.995, 0, 1], np.float32))
    np.testing.assert_array_equal(file.numbers("novel"), [0, np.nan, 0, 1, np.nan, 1])
    np.testing.assert_array_equal(file.numbers("measures")[:3], [[1, 2, 3], [np.nan] * 3, [4, np.nan, 6]])
    assert file.table["labels_set"].to_pylist()[:3] == [["Pro"], None, ["Pro", "Pre"]]
    assert file.numbers("embedding").dtype == np.float16
    np.testing.assert_array_equal(file.numbers("embedding")[:3], [[0.5, 1], [np.nan] * 2, [2, 3]])


def test_they_are_read_whole_or_in_parts(tmp_path: Path) -> None:
    path = with_columns(tmp_path / "p.parquet")

    check_values(PredictionsFile.read(path, optional=list(OPTIONAL)))
    head, first, second = PredictionsFile.parts(path, optional=["novelty", "embedding"])

    assert head.numbers("embedding").shape == (0, 2)
    assert not first.has("novel")
    assert [len(first.numbers("embedding")), len(second.numbers("novelty"))] == [4, 2]
    assert second.numbers("novelty").tolist() == [0, 1]


def test_they_are_empty_in_a_file_of_no_rows_that_pandas_wrote(tmp_path: Path) -> None:
    path = with_columns(tmp_path / "p.parquet")
    pd.read_parquet(path).iloc[:0].to_parquet(path)

    file = PredictionsFile.read(path, LABELS, list(OPTIONAL))

    assert {len(file.numbers(name)) for name in ("novelty", "measures", "embedding")} == {0}


def test_a_file_without_them_is_read_as_before(tmp_path: Path) -> None:
    file = PredictionsFile.read(predictions_file(tmp_path / "p.parquet", rows_and_truth()[0]), optional=list(OPTIONAL))

    assert not any(file.has(name) for name in OPTIONAL)


def test_another_program_may_have_written_them_again(tmp_path: Path) -> None:
    path = with_columns(tmp_path / "p.parquet")
    pd.read_parquet(path).to_parquet(tmp_path / "pandas.parquet")
    lists = pl.col("measures").arr.to_list(), pl.col("embedding").cast(pl.List(pl.Float64))
    pl.read_parquet(path).with_columns(lists).write_parquet(tmp_path / "polars.parquet")

    for name in ("pandas", "polars"):
        check_values(PredictionsFile.read(tmp_path / f"{name}.parquet", LABELS, list(OPTIONAL)))


def test_a_column_that_a_run_carried_over_from_a_table_is_not_taken_for_one(tmp_path: Path) -> None:
    kept = pa.table({"novelty": pa.array(["new", "old"] * 3)})
    path = with_columns(tmp_path / "p.parquet", kept, {"kept": [["novelty", "string"]]})

    assert not PredictionsFile.read(path, optional=["novelty"]).has("novelty")


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        (pa.array([[1.0], [1.0, 2.0]] * 3), "lists of different lengths"),
        (pa.array(["much", "little"] * 3), "no predictions file"),
    ],
)
def test_damaged_ones_are_refused(tmp_path: Path, column: pa.Array, reason: str) -> None:
    path = with_columns(tmp_path / "p.parquet", pa.table({"measures": column}))

    with pytest.raises(LabelsError, match=reason):
        PredictionsFile.read(path, optional=["measures"])


def test_one_that_stands_twice_is_refused(tmp_path: Path) -> None:
    twice = pa.table([COLUMNS["novelty"]] * 2, names=["novelty"] * 2)

    with pytest.raises(LabelsError, match="more than one column 'novelty'"):
        PredictionsFile.read(with_columns(tmp_path / "p.parquet", twice), optional=["novelty"])


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_each_format_gives_back_what_was_written(tmp_path: Path, ending: str) -> None:
    names = [name for name in COLUMNS.column_names if name != "embedding" or ending != ".csv"]
    identity = {"measures": ["brightness", "contrast", "sharpness"], "coverage": 0.95}
    identity |= {"embedding": 2} if "embedding" in names else {}
    columns = COLUMNS.select(names)
    rows = pq.read_table(predictions_file(tmp_path / "p.parquet", rows_and_truth(ROWS)[0]))
    for name, column in zip(columns.column_names, columns.columns, strict=True):
        rows = rows.append_column(name, column)
    form, path = format_to_write(f"o{ending}"), tmp_path / f"o{ending}"
    record = {"labels": LABELS, "identity": identity}
    with path.open("wb") as stream:
        beside = form.write(stream, [rows.replace_schema_metadata(None)], LABELS, record)
    if beside is not None:
        beside_path(path).write_bytes(beside)

    file = PredictionsFile.read(path, optional=list(OPTIONAL))
    parts = [part for part in PredictionsFile.parts(path, optional=["novelty", "novel"]) if len(part.table)]

    assert file.table.select(names).to_pylist() == columns.to_pylist()
    assert [value for part in parts for value in part.table["novel"].to_pylist()] == columns["novel"].to_pylist()
