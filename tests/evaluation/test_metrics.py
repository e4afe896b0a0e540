"""Figures beside the truth: held to scikit-learn, and to what intervals, temperatures and thresholds promise."""

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    cohen_kappa_score,
    f1_score,
    log_loss,
    precision_score,
    recall_score,
    roc_auc_score,
)

from batchcls.evaluation.calibration import calibration, fitted_temperature, reliability, risk_coverage
from batchcls.evaluation.metrics import areas, blocks, confusion, estimates, levels, rates, resampled

Answers = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]


def answers(images: int, classes: int = 3, seed: int = 0, hint: float = 1.5, sharpness: float = 1.0) -> Answers:
    """Truth, predicted codes and probabilities, which are calibrated at a sharpness of 1."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, hint, (images, classes))
    cumulated = np.cumsum(softmax(logits, axis=1), axis=1)
    truth = np.minimum((rng.random((images, 1)) > cumulated).sum(axis=1), classes - 1).astype(np.int32)
    probabilities = softmax(logits * sharpness, axis=1).astype(np.float32)
    return truth, probabilities.argmax(axis=1).astype(np.int32), probabilities


pairs = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60)


@given(pairs)
def test_rates_are_those_of_scikit_learn(both: list[tuple[int, int]]) -> None:
    truth, predicted = map(np.array, zip(*both, strict=True))
    found = {name: values[0] for name, values in rates(confusion(truth, predicted, 4)[None]).items()}
    every = {"labels": range(4), "average": None, "zero_division": np.nan}

    assert found["accuracy"] == pytest.approx(accuracy_score(truth, predicted))
    for name, score in {"precision": precision_score, "recall": recall_score, "f1": f1_score}.items():
        assert found[name] == pytest.approx(score(truth, predicted, **every), nan_ok=True), name
    if len({*truth, *predicted}) > 1:
        assert found["kappa"] == pytest.approx(cohen_kappa_score(truth, predicted), abs=1e-12)
    else:
        assert np.isnan(found["kappa"])


@given(pairs, st.integers(0, 100))
def test_averages_are_over_the_classes_that_have_images(both: list[tuple[int, int]], seed: int) -> None:
    truth, predicted = (np.array(side, np.int32) for side in zip(*both, strict=True))
    probabilities = np.full((len(truth), 4), 0.25, np.float32)

    overall, _ = estimates(truth, predicted, probabilities, blocks(len(truth), seed), seed)

    chosen = {"labels": np.unique(truth), "average": "macro", "zero_division": 0}
    for name, score in {"precision": precision_score, "recall": recall_score, "f1": f1_score}.items():
        assert overall[f"macro_{name}"]["value"] == pytest.approx(score(truth, predicted, **chosen)), name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the truth lacks some predicted classes
        assert overall["balanced_accuracy"]["value"] == pytest.approx(balanced_accuracy_score(truth, predicted))


@given(st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=2, max_size=60))
def test_areas_of_few_scores_are_exactly_those_of_scikit_learn(both: list[tuple[int, bool]]) -> None:
    scores, own = np.array([score for score, _ in both], np.float32), np.array([is_own for _, is_own in both])

    cells, count = levels(scores, own)
    found = areas(np.bincount(cells, minlength=count)[None])

    if own.all() or not own.any():
        assert np.isnan(found["roc_auc"][0])
        assert np.isnan(found["pr_auc"][0])
    else:
        assert found["roc_auc"][0] == pytest.approx(roc_auc_score(own, scores))
        assert found["pr_auc"][0] == pytest.approx(average_precision_score(own, scores))


@pytest.mark.parametrize("share", [0.5, 0.002])
def test_areas_of_many_scores_are_close_however_rare_the_class(share: float) -> None:
    rng = np.random.default_rng(3)
    own = rng.random(100_000) < share
    scores = (1 / (1 + np.exp(-rng.normal(0, 1, 100_000) - 3 * own))).astype(np.float32)

    cells, count = levels(scores, own)
    found = areas(np.bincount(cells, minlength=count)[None])

    assert count <= 2 * 4097
    assert found["roc_auc"][0] == pytest.approx(roc_auc_score(own, scores), abs=1e-6)
    assert found["pr_auc"][0] == pytest.approx(average_precision_score(own, scores), abs=1e-4)


def test_a_resample_draws_as_many_groups_as_there_are_and_shares_them_between_tables() -> None:
    groups = np.array([0, 0, 1, 2, 2, 2])
    first, second = np.array([0, 0, 1, 2, 2, 2]), np.array([1, 1, 0, 0, 0, 0])

    chunks = list(resampled([(first, 3), (second, 2)], groups, seed=5))
    counts, other = (np.concatenate(tables) for tables in zip(*chunks, strict=True))

    assert counts.shape == (1000, 3)
    assert ((counts / [2, 1, 3]).sum(axis=1) == 3).all()  # cells are groups here: three draws
    assert (other == np.stack([counts[:, 1] + counts[:, 2], counts[:, 0]], axis=1)).all()
    assert len(np.unique(counts, axis=0)) == 10  # every way to draw 3 of 3


def test_intervals_hold_the_value_and_have_the_width_that_theory_gives() -> None:
    truth, predicted, probabilities = answers(4000)

    overall, classes = estimates(truth, predicted, probabilities, blocks(4000, 0), 0)

    for found in [*overall.values(), *(found for each in classes for found in each.values())]:
        assert found["low"] < found["value"] < found["high"]
    accuracy = overall["accuracy"]
    deviation = np.sqrt(accuracy["value"] * (1 - accuracy["value"]) / 4000)
    assert accuracy["high"] - accuracy["low"] == pytest.approx(2 * 1.96 * deviation, rel=0.12)


def test_blocks_of_images_give_the_intervals_of_images() -> None:
    truth, predicted, probabilities = answers(60_000)

    by_block, _ = estimates(truth, predicted, probabilities, blocks(60_000, 0), 0)
    by_image, _ = estimates(truth, predicted, probabilities, np.arange(60_000), 1)

    assert blocks(60_000, 0).max() + 1 < 60_000
    for name in ("accuracy", "macro_f1", "kappa", "macro_roc_auc", "macro_pr_auc"):
        widths = [found[name]["high"] - found[name]["low"] for found in (by_block, by_image)]
        assert widths[0] == pytest.approx(widths[1], rel=0.15), name


def test_intervals_are_wider_where_groups_share_their_errors() -> None:
    truth, predicted, probabilities = (np.repeat(values, 10, axis=0) for values in answers(300))
    groups = np.repeat(np.arange(300), 10)

    alone, _ = estimates(truth, predicted, probabilities, blocks(3000, 0), 0)
    together, _ = estimates(truth, predicted, probabilities, groups, 0)

    for name, found in together.items():
        assert found["value"] == alone[name]["value"]
        assert found["high"] - found["low"] > 2 * (alone[name]["high"] - alone[name]["low"]), name


def test_one_seed_gives_one_result_and_another_seed_another() -> None:
    given = answers(500)

    first, again, other = (estimates(*given, blocks(500, seed), seed) for seed in (0, 0, 1))

    assert first == again
    assert first[0]["accuracy"]["value"] == other[0]["accuracy"]["value"]
    assert first != other


@pytest.mark.parametrize("images", [1, 5])
def test_what_is_undefined_is_none_and_says_why(images: int) -> None:
    truth = np.zeros(images, np.int32)
    probabilities = np.tile(np.array([[0.8, 0.2]], np.float32), (images, 1))

    overall, classes = estimates(truth, truth, probabilities, blocks(images, 0), 0)

    undefined = [overall["kappa"], overall["macro_roc_auc"], classes[0]["roc_auc"], classes[1]["recall"]]
    assert all(found["value"] is None and found["why"] for found in undefined)
    assert overall["accuracy"]["value"] == 1
    assert (overall["accuracy"]["low"] is None) == (images == 1)


@given(st.integers(1, 300), st.integers(0, 1000))
def test_calibration_is_that_of_scikit_learn(images: int, seed: int) -> None:
    truth, predicted, probabilities = answers(images, seed=seed)

    found = calibration(probabilities, truth, predicted, np.arange(images), 0)

    exact = probabilities.astype(np.float64) / probabilities.sum(axis=1, keepdims=True, dtype=np.float64)
    assert found["nll"] == pytest.approx(log_loss(truth, exact, labels=range(3)), rel=1e-4, abs=1e-6)
    assert found["brier"] == pytest.approx(brier_score_loss(truth, exact, labels=range(3)), rel=1e-4, abs=1e-6)
    assert sum(place["images"] for place in found["bins"]) == images


def test_the_calibration_error_is_the_promise_less_what_is_kept() -> None:
    bins, error = reliability(np.array([0.9, 0.9, 0.9, 0.9, 0.5, 1.0], np.float32), np.array([1, 1, 0, 0, 1, 1], bool))

    assert error == pytest.approx((4 * abs(0.9 - 0.5) + 0.5 + 0) / 6, abs=1e-6)
    assert [(round(place["from"] * 15), place["images"]) for place in bins if place["images"]] == [
        (7, 1),
        (13, 4),
        (14, 1),
    ]


@pytest.mark.parametrize("sharpness", [0.5, 3.0])
def test_a_temperature_finds_the_sharpness_and_mends_images_it_has_not_seen(sharpness: float) -> None:
    truth, predicted, probabilities = answers(20_000, sharpness=sharpness)

    found = calibration(probabilities, truth, predicted, np.arange(20_000) // 4, 0)
    tempered = found["temperature"]

    assert tempered["fitted"] == pytest.approx(sharpness, rel=0.05)
    assert tempered["ece"] < found["ece"] / 3
    assert tempered["nll"] < found["nll"]


@pytest.mark.parametrize("seed", range(3))
def test_certain_probabilities_break_nothing(seed: int) -> None:
    truth, predicted, _ = answers(200, seed=seed)
    certain = np.eye(3, dtype=np.float32)[predicted]

    found = calibration(certain, truth, predicted, np.arange(200), 0)

    assert 0 < found["nll"] < 30
    assert found["ece"] == pytest.approx((truth != predicted).mean())


def test_no_temperature_is_fitted_to_answers_without_an_error_or_to_one_image() -> None:
    truth, _, probabilities = answers(50)

    faultless = calibration(probabilities, probabilities.argmax(axis=1), probabilities.argmax(axis=1), np.arange(50), 0)
    alone = calibration(probabilities, truth, truth, np.zeros(50, int), 0)

    for found in (faultless, alone):
        assert found["temperature"]["fitted"] is None
        assert found["temperature"]["why"]


def test_the_fitted_temperature_has_the_least_loss() -> None:
    truth, _, probabilities = answers(3000, sharpness=2.0)
    logits = np.log(probabilities) - np.log(probabilities).max(axis=1, keepdims=True)
    own = logits[np.arange(3000), truth]

    fitted = fitted_temperature(logits, own)

    assert fitted is not None
    losses = [
        -log_softmax(logits / (fitted * factor), axis=1)[np.arange(3000), truth].mean() for factor in (0.9, 1, 1.1)
    ]
    assert losses[1] < min(losses[0], losses[2])


@given(
    st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=1, max_size=40),
    st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0]),
)
def test_a_threshold_accepts_all_that_it_can_and_errs_no_more_than_wanted(
    images: list[tuple[int, bool]], wanted: float
) -> None:
    top = np.array([score for score, _ in images], np.float32) / 20
    right = np.array([is_right for _, is_right in images])

    found = risk_coverage(top, right, wanted)["threshold"]

    possible = [value for value in np.unique(top) if (~right[top >= value]).mean() <= wanted]
    if found is None:
        assert possible == []
    else:
        accepted = top >= np.float32(found["probability"])
        assert found["probability"] == min(possible)
        assert found["accepted"] == accepted.sum()
        assert found["to_a_human"] == (~accepted).sum()
        assert found["errors"] == (~right[accepted]).sum()
        assert found["error_rate"] <= wanted
        assert found["error_rate"] <= found["error_rate_at_most"] <= 1


def test_the_bound_of_no_error_in_n_is_the_rule_of_three() -> None:
    found = risk_coverage(np.full(300, 0.9, np.float32), np.ones(300, bool), 0.01)["threshold"]

    assert found["error_rate_at_most"] == pytest.approx(1 - 0.05 ** (1 / 300))


def test_images_of_one_probability_share_a_fate() -> None:
    found = risk_coverage(np.full(10, 0.9, np.float32), np.arange(10) > 0, 0.05)

    assert found["threshold"] is None
    assert found["coverage"] == [1.0]
    assert found["aurc"] == pytest.approx(0.1)
