"""Metrics with intervals: held to scikit-learn, and to what intervals promise."""

import warnings
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import balanced_accuracy_score, f1_score, precision_score, recall_score

from batchcls.evaluation.bootstrap import (
    ClassMetrics,
    Estimate,
    OverallMetrics,
    estimate_metrics,
    image_blocks,
    resampled_histograms,
)
from tests.evaluation.predictions import labeled_predictions, random_predictions

pairs = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60)


def estimates_of(metrics: OverallMetrics | ClassMetrics) -> dict[str, Estimate]:
    return {field.name: getattr(metrics, field.name) for field in fields(metrics)}


def value(estimate: Estimate) -> float:
    assert estimate.value is not None
    return estimate.value


def bounds(estimate: Estimate) -> tuple[float, float]:
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.low, estimate.high


def width(estimate: Estimate) -> float:
    low, high = bounds(estimate)
    return high - low


@given(pairs, st.integers(0, 100))
def test_averages_are_over_the_classes_that_have_images(both: list[tuple[int, int]], seed: int) -> None:
    truth, predicted = (np.array(side, np.int32) for side in zip(*both, strict=True))
    probabilities = np.full((len(truth), 4), 0.25, np.float32)

    overall, _ = estimate_metrics(
        labeled_predictions(truth, predicted, probabilities, image_blocks(len(truth), seed)), seed
    )

    present = {"labels": np.unique(truth), "average": "macro", "zero_division": 0}
    for name, score in {"precision": precision_score, "recall": recall_score, "f1": f1_score}.items():
        assert getattr(overall, f"macro_{name}").value == pytest.approx(score(truth, predicted, **present)), name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the truth lacks some predicted classes
        assert overall.balanced_accuracy.value == pytest.approx(balanced_accuracy_score(truth, predicted))


def test_a_resample_draws_as_many_groups_as_there_are_and_shares_them_between_tables() -> None:
    groups = np.array([0, 0, 1, 2, 2, 2])
    first, second = np.array([0, 0, 1, 2, 2, 2]), np.array([1, 1, 0, 0, 0, 0])

    chunks = list(resampled_histograms([(first, 3), (second, 2)], groups, seed=5))
    counts, other = (np.concatenate(tables) for tables in zip(*chunks, strict=True))

    assert counts.shape == (1000, 3)
    assert ((counts / [2, 1, 3]).sum(axis=1) == 3).all()  # cells are groups here: three draws
    assert (other == np.stack([counts[:, 1] + counts[:, 2], counts[:, 0]], axis=1)).all()
    assert len(np.unique(counts, axis=0)) == 10  # every way to draw 3 of 3


def test_intervals_hold_the_value_and_have_the_width_that_theory_gives() -> None:
    overall, classes = estimate_metrics(random_predictions(4000), 0)

    for metrics in [overall, *classes]:
        for estimate in estimates_of(metrics).values():
            assert bounds(estimate)[0] < value(estimate) < bounds(estimate)[1]
    accuracy = value(overall.accuracy)
    deviation = np.sqrt(accuracy * (1 - accuracy) / 4000)
    assert width(overall.accuracy) == pytest.approx(2 * 1.96 * deviation, rel=0.12)


def test_blocks_of_images_give_the_intervals_of_images() -> None:
    images = random_predictions(60_000)

    by_block, _ = estimate_metrics(replace(images, groups=image_blocks(60_000, 0)), 0)
    by_image, _ = estimate_metrics(images, 1)

    assert image_blocks(60_000, 0).max() + 1 < 60_000
    for name in ("accuracy", "macro_f1", "kappa", "macro_roc_auc", "macro_pr_auc"):
        widths = [width(getattr(overall, name)) for overall in (by_block, by_image)]
        assert widths[0] == pytest.approx(widths[1], rel=0.15), name


def test_intervals_are_wider_where_groups_share_their_errors() -> None:
    few = random_predictions(300)
    copies = [np.repeat(values, 10, axis=0) for values in (few.truth, few.predicted, few.probabilities, few.groups)]
    grouped = labeled_predictions(*copies)

    together, _ = estimate_metrics(grouped, 0)
    alone, _ = estimate_metrics(replace(grouped, groups=image_blocks(3000, 0)), 0)

    for name, estimate in estimates_of(together).items():
        ungrouped = estimates_of(alone)[name]
        assert estimate.value == ungrouped.value
        assert width(estimate) > 2 * width(ungrouped), name


def test_one_seed_gives_one_result_and_another_seed_another() -> None:
    images = random_predictions(500)

    first, again, other = (estimate_metrics(images, seed) for seed in (0, 0, 1))

    assert first == again
    assert first[0].accuracy.value == other[0].accuracy.value
    assert first != other


@pytest.mark.parametrize("images", [1, 5])
def test_what_is_undefined_is_none_and_says_why(images: int) -> None:
    truth = np.zeros(images, np.int32)
    probabilities = np.tile(np.array([[0.8, 0.2]], np.float32), (images, 1))

    overall, classes = estimate_metrics(labeled_predictions(truth, truth, probabilities), 0)

    undefined = [overall.kappa, overall.macro_roc_auc, classes[0].roc_auc, classes[1].recall]
    assert all(estimate.value is None and estimate.why for estimate in undefined)
    assert overall.accuracy.value == 1
    assert (overall.accuracy.low is None) == (images == 1)


def wilson(right: int, images: int) -> tuple[float, float]:
    interval = binomtest(right, images).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=2, max_size=40), st.sampled_from([None, 3, 7])
)
def test_an_interval_never_claims_certainty(both: list[tuple[int, int]], group_size: int | None) -> None:
    truth, predicted = (np.array(side, np.int32) for side in zip(*both, strict=True))
    probabilities = np.full((len(truth), 3), 1 / 3, np.float32)
    groups = None if group_size is None else np.arange(len(truth)) // group_size
    images = labeled_predictions(truth, predicted, probabilities, groups)

    overall, classes = estimate_metrics(images, 0)

    for metrics in [overall, *classes]:
        for name, estimate in estimates_of(metrics).items():
            assert (estimate.low is None) == (estimate.why is not None), name
            assert estimate.low is None or width(estimate) > 0, name
    if (truth == predicted).all() and images.groups.max() > 0:
        observations = len(truth) if groups is None else len(np.unique(groups))
        assert bounds(overall.accuracy) == pytest.approx(wilson(observations, observations))


def test_a_class_that_is_always_right_or_always_wrong_has_wilsons_interval() -> None:
    truth, predicted = np.repeat([0, 1, 2], [12, 7, 5]).astype(np.int32), np.repeat([0, 2, 0], [12, 7, 5])
    probabilities = np.full((24, 3), 1 / 3, np.float32)

    _, (right, wrong, other) = estimate_metrics(labeled_predictions(truth, predicted, probabilities), 0)

    assert (value(right.recall), bounds(right.recall)) == (1, pytest.approx(wilson(12, 12)))
    assert (value(wrong.recall), bounds(wrong.recall)) == (0, pytest.approx(wilson(0, 7)))
    assert (value(other.precision), bounds(other.precision)) == (0, pytest.approx(wilson(0, 7)))
    assert wrong.precision.value is None


def test_all_right_is_no_certainty_in_any_metric() -> None:
    truth = np.arange(90, dtype=np.int32) % 3
    probabilities = np.eye(3, dtype=np.float32)[truth]

    overall, classes = estimate_metrics(labeled_predictions(truth, truth, probabilities), 0)

    assert bounds(overall.accuracy) == pytest.approx(wilson(90, 90))
    assert bounds(classes[0].recall) == pytest.approx(wilson(30, 30))
    assert (overall.macro_f1.value, overall.macro_f1.low) == (1, None)
    assert "all resamples agree" in str(overall.macro_f1.why)
