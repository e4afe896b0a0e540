"""Logits become predictions."""

import numpy as np
import numpy.typing as npt

from batchcls.records import Logits, Predictions


def predictions(logits: Logits) -> Predictions:
    """Softmax and its most probable class; of equal classes, the first.

    Args:
        logits: (N, classes) float32; rows may hold NaN or infinity, which only ``finite`` then tells.
    """
    finite: npt.NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(logits), axis=1)
    safe = np.where(finite[:, None], logits, 0).astype(np.float64)  # in which no difference of float32 overflows
    exponentials = np.exp(safe - safe.max(axis=1, keepdims=True, initial=-np.inf))
    probabilities = (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32)
    return Predictions(probabilities.argmax(axis=1).astype(np.int32), probabilities, finite)
