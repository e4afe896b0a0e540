"""Predictions that pandas, Polars or DuckDB wrote again are the same predictions, or are refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from batchcls.cli import main
from batchcls.errors import LabelsError
from batchcls.predictions.reader import PredictionsFile
from batchcls.predictions.resaved_files import label_order
from batchcls.records import METADATA_KEY
from tests.evaluation.test_evaluate import LABELS, Row, metrics_of, predictions_file, refusal, rows_and_truth, truth_csv

Rewrite = Callable[[Path, Path], object]


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, Path]:
    """Predictions of 120 images, three of them unreadable, and the truth."""
    rows, truth = rows_and_truth()
    rows[:3] = [(name, None, 0.0) for name, _, _ in rows[:3]]
    return predictions_file(tmp_path / "p.parquet", rows), truth_csv(tmp_path / "t.csv", truth)


def report(predicted: Path, out: Path, *more: str) -> Result:
    return CliRunner().invoke(main, ["report", str(predicted), "--out", str(out), *more])


def by_pandas(path: Path, out: Path) -> None:
    table = pd.read_parquet(path)
    table[table.path != ""].sort_values("probability").to_parquet(out)


def by_pandas_on_arrow(path: Path, out: Path) -> None:
    pd.read_parquet(path, dtype_backend="pyarrow").iloc[::-1].to_parquet(out)


def by_pandas_with_nullable_types(path: Path, out: Path) -> None:
    pd.read_parquet(path, dtype_backend="numpy_nullable").to_parquet(out, index=False)


def by_pandas_with_a_column_more(path: Path, out: Path) -> None:
    table = pd.read_parquet(path)
    table["seen"] = [{"by": ["me"]}] * len(table)
    table.astype({"probability": "float64"}).to_parquet(out)


def by_polars(path: Path, out: Path) -> None:
    pl.read_parquet(path).filter(pl.col("path") != "").write_parquet(out)


def by_polars_streaming(path: Path, out: Path) -> None:
    pl.scan_parquet(path).sort("probability").sink_parquet(out)


def by_polars_as_lists(path: Path, out: Path) -> None:
    pl.read_parquet(path).with_columns(
        pl.col("probabilities").arr.to_list(), pl.col("label").cast(pl.String)
    ).write_parquet(out)


def by_duckdb(path: Path, out: Path) -> None:
    duckdb.read_parquet(str(path)).order("label").write_parquet(str(out), row_group_size=2048)


REWRITES = [
    by_pandas,
    by_pandas_on_arrow,
    by_pandas_with_nullable_types,
    by_pandas_with_a_column_more,
    by_polars,
    by_polars_streaming,
    by_polars_as_lists,
    by_duckdb,
]


@pytest.mark.parametrize("rewrite", REWRITES)
def test_figures_are_those_of_the_file_that_was_written_first(
    written: tuple[Path, Path], tmp_path: Path, rewrite: Rewrite
) -> None:
    predicted, truth = written
    rewrite(predicted, tmp_path / "again.parquet")

    first = metrics_of(predicted, truth, tmp_path / "1")
    again = metrics_of(tmp_path / "again.parquet", truth, tmp_path / "2")

    for figure in ("overall", "classes", "confusion", "matched"):
        assert again[figure] == first[figure]
    assert again["predictions"]["notes"][0].startswith("The predictions were written again by another program")
    assert again["notes"][0] == again["predictions"]["notes"][0]
    assert first["predictions"]["notes"] == []


def test_a_file_from_before_sizes_and_times_were_kept_is_the_same(written: tuple[Path, Path], tmp_path: Path) -> None:
    predicted, truth = written
    pq.write_table(pq.read_table(predicted).drop_columns(["size_bytes", "modified"]), tmp_path / "old.parquet")

    first, old = (
        metrics_of(predicted, truth, tmp_path / "1"),
        metrics_of(tmp_path / "old.parquet", truth, tmp_path / "2"),
    )

    assert (old["overall"], old["confusion"]) == (first["overall"], first["confusion"])
    assert report(tmp_path / "old.parquet", tmp_path / "old.html").exit_code == 0


@pytest.mark.parametrize("rewrite", REWRITES)
def test_a_report_is_made_of_them(written: tuple[Path, Path], tmp_path: Path, rewrite: Rewrite) -> None:
    rewrite(written[0], tmp_path / "again.parquet")

    result = report(tmp_path / "again.parquet", tmp_path / "o.html")

    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("120 rows, 3 unreadable -> ")
    assert "note: The predictions were written again by another program" in result.stdout
    assert "written again by another program" in (tmp_path / "o.html").read_text()


def test_rows_that_are_missing_are_said(tmp_path: Path) -> None:
    rows, truth = rows_and_truth()
    predicted = predictions_file(tmp_path / "p.parquet", rows)
    table = pq.read_table(predicted)
    about = json.loads(table.schema.metadata[METADATA_KEY]) | {"counts": {"rows": 120}}
    table = table.replace_schema_metadata({METADATA_KEY: json.dumps(about)})
    pq.write_table(table, predicted)
    pq.write_table(table.filter(pc.greater(table["probability"], 0.9)), tmp_path / "q.parquet")
    said = "The predictions are 18 rows, where batchcls run wrote 120: figures are of these alone."

    found = metrics_of(tmp_path / "q.parquet", truth_csv(tmp_path / "t.csv", truth), tmp_path / "report")

    assert said in found["notes"]
    assert said in report(tmp_path / "q.parquet", tmp_path / "o.html").stdout
    assert "note: " not in report(predicted, tmp_path / "p.html").stdout


def test_labels_that_no_row_tells_must_be_named(written: tuple[Path, Path], tmp_path: Path) -> None:
    predicted, truth = written
    table = pd.read_parquet(predicted)
    table[table.label != "b"].to_parquet(tmp_path / "q.parquet")
    named = ("--labels", "a,b,c")

    said = refusal(tmp_path / "q.parquet", truth, tmp_path / "report")
    page = report(tmp_path / "q.parquet", tmp_path / "o.html")
    found = metrics_of(tmp_path / "q.parquet", truth, tmp_path / "report", *named)

    assert "in the order of its probabilities, a,?,c; name them all: --labels A,B,..." in said
    assert "a,?,c; name them all: --labels" in page.stderr
    assert found["confusion"]["labels"] == list(LABELS)
    assert report(tmp_path / "q.parquet", tmp_path / "o.html", *named).exit_code == 0


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ("c,b,a", "not in one order, or not in that of --labels: by its rows 'a' is number 1, 'b' is number 2"),
        ("a,b", "it has 3 probabilities a row, not 2"),
        ("a,b,c,d", "it has 3 probabilities a row, not 4"),
        ("a,b,x", "not in that of --labels"),
    ],
)
def test_labels_that_rows_contradict_are_refused(
    written: tuple[Path, Path], tmp_path: Path, labels: str, reason: str
) -> None:
    by_pandas(written[0], tmp_path / "q.parquet")

    assert reason in refusal(tmp_path / "q.parquet", written[1], tmp_path / "report", "--labels", labels)


def test_labels_other_than_those_that_the_file_names_are_refused(written: tuple[Path, Path], tmp_path: Path) -> None:
    said = refusal(*written, tmp_path / "report", "--labels", "b,a,c")

    assert "has the labels ['a', 'b', 'c'], not ['b', 'a', 'c']; leave out --labels" in said
    assert report(written[0], tmp_path / "o.html", "--labels", "b,a,c").exit_code == 1


def renamed(table: "pd.DataFrame") -> "pd.DataFrame":
    return table.rename(columns={"label": "class"})


def labels_sorted_alone(table: "pd.DataFrame") -> "pd.DataFrame":
    return table.assign(label=sorted(table["label"]))


def probabilities_reversed(table: "pd.DataFrame") -> "pd.DataFrame":
    return table.assign(probabilities=[row[::-1] if at % 2 else row for at, row in enumerate(table["probabilities"])])


def probability_of_another(table: "pd.DataFrame") -> "pd.DataFrame":
    return table.assign(probability=1 - table["probability"])


def probabilities_as_text(table: "pd.DataFrame") -> "pd.DataFrame":
    return table.assign(probabilities=table["probabilities"].map(str))


def probabilities_cut(table: "pd.DataFrame") -> "pd.DataFrame":
    return table.assign(probabilities=[row[:2] if at == 7 else row for at, row in enumerate(table["probabilities"])])


def no_rows(table: "pd.DataFrame") -> "pd.DataFrame":
    return table.iloc[:0]


@pytest.mark.parametrize(
    "spoil",
    [
        renamed,
        labels_sorted_alone,
        probabilities_reversed,
        probability_of_another,
        probabilities_as_text,
        probabilities_cut,
        no_rows,
    ],
)
def test_what_contradicts_itself_is_refused(tmp_path: Path, spoil: Callable[["pd.DataFrame"], "pd.DataFrame"]) -> None:
    rows, truth = rows_and_truth()
    predicted = predictions_file(tmp_path / "p.parquet", rows)
    spoil(pd.read_parquet(predicted)).to_parquet(tmp_path / "q.parquet")

    said = refusal(tmp_path / "q.parquet", truth_csv(tmp_path / "t.csv", truth), tmp_path / "report")

    assert "q.parquet' is no predictions file of batchcls run: " in said
    assert report(tmp_path / "q.parquet", tmp_path / "o.html").exit_code == 1


def test_a_temperature_is_not_given_on_top_of_one_that_is_not_known(tmp_path: Path) -> None:
    rows, truth = rows_and_truth(600)
    named = truth_csv(tmp_path / "t.csv", truth)
    by_pandas(predictions_file(tmp_path / "p.parquet", rows, engine={"temperature": 2.0}), tmp_path / "q.parquet")

    found = metrics_of(tmp_path / "q.parquet", named, tmp_path / "report")

    assert found["calibration"]["temperature"]["give"] is None
    assert "multiply the engine's own temperature by it" in found["advice"]["temperature"]
    assert "batchcls build" not in found["advice"]["temperature"]


@given(
    order=st.permutations(["a", "b", "c", "d"]),
    codes=st.lists(st.integers(0, 3), min_size=1, max_size=30),
    at_a_time=st.integers(1, 7),
)
def test_rows_tell_the_order_of_the_labels_that_they_have(order: list[str], codes: list[int], at_a_time: int) -> None:
    answers = np.full((len(codes), 4), 0.1, np.float32)
    answers[np.arange(len(codes)), codes] = 0.7
    rows = {
        "label": [order[code] for code in codes],
        "probability": answers.max(axis=1),
        "probabilities": list(answers),
    }
    tables = [pa.Table.from_batches([batch]) for batch in pa.table(rows).to_batches(at_a_time)]

    if len(set(codes)) == 4:
        assert label_order(tables) == tuple(order)
    else:
        told = ",".join(label if code in codes else "?" for code, label in enumerate(order))
        with pytest.raises(ValueError, match="in the order of its probabilities, " + told.replace("?", r"\?")):
            label_order(tables)
    assert label_order(tables, order) == tuple(order)


def test_a_tie_tells_nothing(tmp_path: Path) -> None:
    rows: list[Row] = [("0.jpg", "a", 0.5), ("1.jpg", "b", 0.9)]
    by_pandas(predictions_file(tmp_path / "p.parquet", rows, labels=("a", "b")), tmp_path / "q.parquet")

    with pytest.raises(LabelsError, match=r"probabilities, \?,b;"):
        PredictionsFile.read(tmp_path / "q.parquet")


def test_a_folder_called_like_a_column_changes_nothing(tmp_path: Path) -> None:
    folder: Any = tmp_path / "label=x"
    folder.mkdir()

    assert PredictionsFile.read(predictions_file(folder / "p.parquet", rows_and_truth()[0])).labels == LABELS
