"""Rates and areas: held to scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    cohen_kappa_score,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
)

from batchcls.evaluation.metrics import areas_of_levels, confusion_matrix, rates, score_levels

pairs = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60)


@given(pairs)
def test_rates_are_those_of_scikit_learn(both: list[tuple[int, int]]) -> None:
    truth, predicted = (np.array(side, np.int32) for side in zip(*both, strict=True))
    values = {name: row[0] for name, row in rates(confusion_matrix(truth, predicted, 4)[None]).items()}
    every = {"labels": range(4), "average": None, "zero_division": np.nan}

    assert values["accuracy"] == pytest.approx(accuracy_score(truth, predicted))
    for name, score in {"precision": precision_score, "recall": recall_score, "f1": f1_score}.items():
        assert values[name] == pytest.approx(score(truth, predicted, **every), nan_ok=True), name
    if len({*truth, *predicted}) > 1:
        assert values["kappa"] == pytest.approx(cohen_kappa_score(truth, predicted), abs=1e-12)
    else:
        assert np.isnan(values["kappa"])


@given(st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=2, max_size=60))
def test_areas_of_few_scores_are_exactly_those_of_scikit_learn(both: list[tuple[int, bool]]) -> None:
    scores, own = np.array([score for score, _ in both], np.float32), np.array([is_own for _, is_own in both])

    cells, count = score_levels(scores, own)
    areas = areas_of_levels(np.bincount(cells, minlength=count)[None])

    if own.all() or not own.any():
        assert np.isnan(areas["roc_auc"][0])
        assert np.isnan(areas["pr_auc"][0])
    else:
        assert areas["roc_auc"][0] == pytest.approx(roc_auc_score(own, scores))
        assert areas["pr_auc"][0] == pytest.approx(average_precision_score(own, scores))


@pytest.mark.parametrize("share", [0.5, 0.002])
def test_areas_of_many_scores_are_close_however_rare_the_class(share: float) -> None:
    rng = np.random.default_rng(3)
    own = rng.random(100_000) < share
    scores = (1 / (1 + np.exp(-rng.normal(0, 1, 100_000) - 3 * own))).astype(np.float32)

    cells, count = score_levels(scores, own)
    areas = areas_of_levels(np.bincount(cells, minlength=count)[None])

    assert count <= 2 * 4097
    assert areas["roc_auc"][0] == pytest.approx(roc_auc_score(own, scores), abs=1e-6)
    assert areas["pr_auc"][0] == pytest.approx(average_precision_score(own, scores), abs=1e-4)
