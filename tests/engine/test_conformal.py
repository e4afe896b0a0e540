"""An engine's conformal thresholds: the sets that they make, and what is refused of a file."""

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchcls.engine.conformal import ConformalThresholds

LABELS = ("a", "b", "c")
VALUES = {"levels": {"0.95": {"a": 0.5, "c": None, "b": 0}, "0.9": {"a": 0.25, "b": 0, "c": 1}}, "images": 40}


def test_a_set_holds_each_label_that_is_probable_enough() -> None:
    thresholds = ConformalThresholds.from_values(VALUES, LABELS)
    probabilities = np.array([[0.75, 0.25, 0], [0.5, 0.5, 0], [0, 1, 0], [0.25, 0.25, 0.5]], np.float32)
    assert thresholds.coverages == (0.9, 0.95)
    assert thresholds.label_sets(probabilities, 0.95).tolist() == [
        [True, False, True],
        [True, False, True],
        [False, True, True],
        [False, False, True],
    ]
    assert thresholds.label_sets(probabilities, 0.9)[:, 0].tolist() == [True, False, False, False]
    assert thresholds.in_every_set(0.95) == ("c",)


@given(st.floats(0, 1, width=32))
def test_an_image_as_strange_as_the_threshold_is_in_the_set(probability: float) -> None:
    values = {"levels": {"0.9": {"a": 1 - probability, "b": 0.0}}, "images": 9}
    thresholds = ConformalThresholds.from_values(values, ("a", "b"))
    assert thresholds.label_sets(np.array([[probability, 0]], np.float32), 0.9)[0, 0]


def test_thresholds_outlive_their_file() -> None:
    thresholds = ConformalThresholds.from_values(VALUES, LABELS)
    assert ConformalThresholds.from_values(asdict(thresholds), LABELS) == thresholds


@pytest.mark.parametrize(
    "values",
    [
        None,
        [],
        {},
        {"levels": {}, "images": 3},
        {"levels": [], "images": 3},
        {**VALUES, "images": -1},
        {**VALUES, "images": True},
        {**VALUES, "images": "40"},
        *(
            {**VALUES, "levels": {level: VALUES["levels"]["0.9"]}}
            for level in ("1.0", "0.0", "nan", "0.90", "x", "-0.5")
        ),  # type: ignore[index]
        {**VALUES, "levels": {"0.9": [0.1, 0.2, 0.3]}},
        {**VALUES, "levels": {"0.9": {"a": 0.1, "b": 0.1}}},
        {**VALUES, "levels": {"0.9": {"a": 0.1, "b": 0.1, "d": 0.1}}},
        *(
            {**VALUES, "levels": {"0.9": {"a": own, "b": 0.1, "c": 0.1}}}
            for own in (1.5, -0.1, True, "0.1", [], 10**400)
        ),
        {**VALUES, "levels": {str(n / 100): {"a": 0.1, "b": 0.1, "c": 0.1} for n in range(1, 99)}},
    ],
)
def test_values_that_are_no_thresholds_are_refused(values: Any) -> None:
    with pytest.raises(ValueError, match="conformal"):
        ConformalThresholds.from_values(values, LABELS)
