"""Counts over the rows of a predictions file."""

import numpy as np

from batchcls.predictions.counts import count_columns, count_rows
from batchcls.predictions.rows import PredictionRows
from batchcls.predictions.schema import added_schema
from batchcls.records import BatchResult, Failure, Predictions, Slide


def test_void_sets_are_told_from_empty_ones_and_from_rows_without_a_label() -> None:
    slides = [Slide("/s", f"{number}.png") for number in range(4)]
    sets = np.array([[-1, -1], [0, 0], [1, 0], [1, 1]], np.int8)
    predictions = Predictions(
        np.array([0, 1, 0, 1], np.int32), np.full((4, 2), 0.5, np.float32), np.ones(4, bool), {"labels_set": sets}
    )
    rows = PredictionRows(["/s"], ("a", "b"), added_schema({"coverage": 0.9}))
    failures = [Failure(Slide("/s", "broken.png"), "corrupt", "cut short")]
    part = rows.of(BatchResult(slides, [(8, 8)] * 4, predictions, failures))

    counts = count_rows([part.select(count_columns(rows.schema))] * 2, ("a", "b"))

    assert (counts.rows, counts.labels, counts.errors) == (10, {"a": 4, "b": 4}, {"corrupt": 2})
    assert counts.sets == {"empty": 2, "single": 2, "void": 2, "labels": 6}
