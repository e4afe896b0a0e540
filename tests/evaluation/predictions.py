"""Labeled predictions for tests of metrics."""

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from batchcls.evaluation.labeled_predictions import LabeledPredictions


def random_predictions(
    images: int, classes: int = 3, seed: int = 0, hint: float = 1.5, sharpness: float = 1.0
) -> LabeledPredictions:
    """Predictions whose probabilities are calibrated at a sharpness of 1, each image in a block of its own."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, hint, (images, classes))
    cumulated = np.cumsum(softmax(logits, axis=1), axis=1)
    truth = np.minimum((rng.random((images, 1)) > cumulated).sum(axis=1), classes - 1).astype(np.int32)
    probabilities = softmax(logits * sharpness, axis=1).astype(np.float32)
    return labeled_predictions(truth, probabilities.argmax(axis=1), probabilities)


def labeled_predictions(
    truth: npt.ArrayLike, predicted: npt.ArrayLike, probabilities: npt.ArrayLike, groups: npt.ArrayLike | None = None
) -> LabeledPredictions:
    """Predictions of these arrays; without ``groups``, images are independent."""
    own = np.arange(len(np.asarray(truth))) if groups is None else groups
    return LabeledPredictions(
        np.asarray(truth, np.int32),
        np.asarray(predicted, np.int32),
        np.asarray(probabilities, np.float32),
        np.asarray(own, np.int64),
        groups is not None,
    )
