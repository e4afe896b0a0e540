"""Turn logits into predictions: probabilities, and the most probable class."""

import numpy as np
import numpy.typing as npt

from batchcls.records import Logits, Predictions


def to_predictions(logits: Logits) -> Predictions:
    """Predictions of a batch: probabilities by softmax, and the most probable class, the first of equal ones.

    Args:
        logits: (N, classes) float32. A row with NaN or infinity has ``finite`` False, and no meaningful prediction.
    """
    finite: npt.NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(logits), axis=1)
    safe = np.where(finite[:, None], logits, 0).astype(np.float64)  # differences of float32 do not overflow in float64
    exponentials = np.exp(safe - safe.max(axis=1, keepdims=True, initial=-np.inf))
    probabilities = (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32)
    return Predictions(probabilities.argmax(axis=1).astype(np.int32), probabilities, finite)
