"""Intervals of proportions that are 0 or 1, of which every bootstrap resample is 0 or 1 too."""

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from batchcls.evaluation.labeled_predictions import LabeledPredictions

Masks = dict[str, list[npt.NDArray[np.bool_]]]


def proportions(predictions: LabeledPredictions) -> Masks:
    """(N,) the images that each proportion is taken over, by the metric's name: one mask for each of its columns.

    Accuracy is taken over all images, recall over those of a class, precision over those predicted as it; each is the
    part of them that is classified correctly.
    """
    classes = range(predictions.classes)
    return {
        "accuracy": [np.ones(len(predictions.truth), bool)],
        "recall": [predictions.truth == code for code in classes],
        "precision": [predictions.predicted == code for code in classes],
    }


def interval_without_spread(predictions: LabeledPredictions, mask: npt.NDArray[np.bool_]) -> tuple[float, float] | None:
    """Wilson's 95 % interval of the part of some images that is classified correctly, if that part is 0 or 1.

    Args:
        predictions: All images; if they are in groups, the interval is that of as many observations as groups.
        mask: (N,) the images that the part is taken over.

    Returns:
        None if some images are classified correctly and others not, or if there are none.
    """
    right = int(predictions.correct[mask].sum())
    images = int(mask.sum())
    if right not in (0, images) or not images:
        return None
    observations = len(np.unique(predictions.groups[mask])) if predictions.is_grouped else images
    interval = binomtest(observations if right else 0, observations).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)
