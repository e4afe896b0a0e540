"""Conformal sets of an evaluation: they hold what they promise, and say so where they promise nothing."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import betabinom

from batchcls.evaluation.conformal import LEVELS, calibration_half, class_thresholds, measure_conformal_sets
from tests.evaluation.predictions import labeled_predictions, random_predictions

LABELS = ("a", "b", "c")


@pytest.mark.parametrize(("classes", "images"), [(3, 3000), (8, 1600)])
def test_every_class_is_covered_as_often_as_promised(classes: int, images: int) -> None:
    labels, unusual, cells = tuple("abcdefgh"[:classes]), 0, 0
    for seed in range(20):
        sets = measure_conformal_sets(random_predictions(images, classes, seed=seed), labels, seed)
        assert sets is not None
        for level, of_level in zip(LEVELS, sets.classes, strict=True):
            for fitted, measures in zip(sets.calibration_images, of_level, strict=True):
                # Of exchangeable images without ties, the number of covered ones has exactly this distribution.
                rank = math.ceil(round((fitted + 1) * level, 9))
                exact = betabinom(measures.images, rank, fitted + 1 - rank)
                unusual += not exact.ppf(0.025) <= measures.covered <= exact.ppf(0.975)
                cells += 1
    assert unusual <= 0.1 * cells  # of about 0.05


@given(
    st.lists(st.floats(0, 1, width=16), min_size=0, max_size=120),
)
def test_thresholds_are_the_quantiles_of_the_definition(scores: list[float]) -> None:
    ordered = sorted(scores)
    ranks = [math.ceil(round((len(scores) + 1) * level, 9)) for level in LEVELS]
    expected = [ordered[rank - 1] if rank <= len(scores) else None for rank in ranks]
    assert list(class_thresholds(np.array(scores, np.float64))) == expected


@pytest.mark.parametrize(
    ("images", "known"), [(8, (False, False)), (9, (True, False)), (18, (True, False)), (19, (True, True))]
)
def test_too_few_images_give_no_threshold(images: int, known: tuple[bool, bool]) -> None:
    thresholds = class_thresholds(np.linspace(0.1, 0.9, images))
    assert tuple(threshold is not None for threshold in thresholds) == known


@given(st.integers(1, 400), st.integers(2, 5), st.integers(0, 9))
def test_a_higher_promise_never_makes_a_set_smaller(images: int, classes: int, seed: int) -> None:
    predictions = random_predictions(images, classes, seed)
    sets = measure_conformal_sets(predictions, tuple("abcde"[:classes]), seed)
    assert sets is not None
    lower, higher = (sets.thresholds.label_sets(predictions.probabilities, level) for level in LEVELS)
    assert (lower <= higher).all()


def test_a_label_without_images_is_in_every_set() -> None:
    drawn = random_predictions(600, 2)
    probabilities = np.concatenate([drawn.probabilities * 0.9, np.full((600, 1), 0.1)], axis=1)
    sets = measure_conformal_sets(labeled_predictions(drawn.truth, drawn.predicted, probabilities), LABELS, 0)
    assert sets is not None
    assert all(sets.thresholds.in_every_set(level) == ("c",) for level in LEVELS)
    assert sets.thresholds.label_sets(np.array([[0.0, 0.0, 0.0]], np.float32), 0.95).tolist() == [[False, False, True]]
    absent = sets.classes[0][2]
    assert (absent.images, absent.coverage, absent.low, absent.mean_size) == (0, None, None, None)


def test_an_engine_of_one_class_has_no_sets() -> None:
    zeros = np.zeros(50, np.int32)
    assert measure_conformal_sets(labeled_predictions(zeros, zeros, np.ones((50, 1))), ("a",), 0) is None


def test_the_halves_share_each_class_evenly_and_tear_no_group() -> None:
    drawn = random_predictions(901)
    first = calibration_half(drawn, 0)
    assert all(
        abs(2 * int(first[drawn.truth == code].sum()) - int((drawn.truth == code).sum())) <= 1 for code in range(3)
    )
    patients = np.arange(901) % 60
    grouped = labeled_predictions(patients % 3, drawn.predicted, drawn.probabilities, patients)
    halves = calibration_half(grouped, 0)
    by_patient = [set(halves[patients == patient]) for patient in range(60)]
    assert all(len(half) == 1 for half in by_patient)
    assert [sum(True in by_patient[patient] for patient in range(code, 60, 3)) for code in range(3)] == [10, 10, 10]
    assert (calibration_half(grouped, 1) != halves).any()
