"""Calibration: held to scikit-learn, and to what a fitted temperature promises."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax
from sklearn.metrics import brier_score_loss, log_loss

from batchcls.evaluation.calibration import fitted_temperature, measure_calibration, reliability
from tests.evaluation.predictions import random_predictions


@given(st.integers(1, 300), st.integers(0, 1000))
def test_calibration_is_that_of_scikit_learn(images: int, seed: int) -> None:
    predictions = random_predictions(images, seed=seed)

    calibration = measure_calibration(predictions, 0)

    truth, probabilities = predictions.truth, predictions.probabilities
    exact = probabilities.astype(np.float64) / probabilities.sum(axis=1, keepdims=True, dtype=np.float64)
    assert calibration.nll == pytest.approx(log_loss(truth, exact, labels=range(3)), rel=1e-4, abs=1e-6)
    assert calibration.brier == pytest.approx(brier_score_loss(truth, exact, labels=range(3)), rel=1e-4, abs=1e-6)
    assert sum(place.images for place in calibration.bins) == images


def test_the_calibration_error_is_the_promise_less_what_is_kept() -> None:
    bins, error = reliability(np.array([0.9, 0.9, 0.9, 0.9, 0.5, 1.0], np.float32), np.array([1, 1, 0, 0, 1, 1], bool))

    assert error == pytest.approx((4 * abs(0.9 - 0.5) + 0.5 + 0) / 6, abs=1e-6)
    assert [(round(place.lower * 15), place.images) for place in bins if place.images] == [
        (7, 1),
        (13, 4),
        (14, 1),
    ]


@pytest.mark.parametrize("sharpness", [0.5, 3.0])
def test_a_temperature_finds_the_sharpness_and_mends_images_it_has_not_seen(sharpness: float) -> None:
    images = random_predictions(20_000, sharpness=sharpness)

    calibration = measure_calibration(replace(images, groups=np.arange(20_000) // 4), 0)

    assert calibration.scaling is not None
    assert calibration.scaling.temperature == pytest.approx(sharpness, rel=0.05)
    assert calibration.scaling.ece < calibration.ece / 3
    assert calibration.scaling.nll < calibration.nll
    assert calibration.is_improved


@pytest.mark.parametrize("seed", range(3))
def test_certain_probabilities_break_nothing(seed: int) -> None:
    images = random_predictions(200, seed=seed)
    certain = replace(images, probabilities=np.eye(3, dtype=np.float32)[images.predicted])

    calibration = measure_calibration(certain, 0)

    assert 0 < calibration.nll < 30
    assert calibration.ece == pytest.approx(1 - images.correct.mean())


def test_no_temperature_is_fitted_to_answers_without_an_error_or_to_one_image() -> None:
    images = random_predictions(50)

    faultless = measure_calibration(replace(images, truth=images.predicted), 0)
    alone = measure_calibration(replace(images, predicted=images.truth, groups=np.zeros(50, int)), 0)

    for calibration in (faultless, alone):
        assert calibration.scaling is None
        assert calibration.why_not_fitted


def test_the_fitted_temperature_has_the_least_loss() -> None:
    images = random_predictions(3000, sharpness=2.0)
    truth, probabilities = images.truth, images.probabilities
    logits = np.log(probabilities) - np.log(probabilities).max(axis=1, keepdims=True)
    own = logits[np.arange(3000), truth]

    fitted = fitted_temperature(logits, own)

    assert fitted is not None
    losses = [
        -log_softmax(logits / (fitted * factor), axis=1)[np.arange(3000), truth].mean() for factor in (0.9, 1, 1.1)
    ]
    assert losses[1] < min(losses[0], losses[2])
