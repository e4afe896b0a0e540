"""Calibration: the agreement of probabilities with accuracy, and the temperature that improves the agreement."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar

from batchcls.evaluation.labeled_predictions import LabeledPredictions

BINS = 15
"""Number of equal bins of the top probability."""
SMALLEST_PROBABILITY = 1e-12
"""Smallest probability of which a logarithm is taken; smaller ones are replaced by it."""
_TEMPERATURES = (0.05, 20.0)

Float32Array = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """One of the equal bins of the top probability."""

    lower: float
    """Lower edge of the bin, 0 to 1."""
    upper: float
    """Upper edge of the bin, 0 to 1."""
    images: int
    """Number of images whose top probability lies in the bin."""
    probability: float | None
    """Mean top probability of those images; None in an empty bin."""
    accuracy: float | None
    """Share of those images that are classified correctly; None in an empty bin."""


@dataclass(frozen=True, slots=True)
class FittedTemperature:
    """A temperature that was fitted on all images, and its cross-validated calibration.

    Each half of the images is scored with the temperature that was fitted on the other half.
    """

    temperature: float
    """Divisor of the logits, fitted on all images; 0.05 to 20."""
    ece: float
    """Expected calibration error after temperature scaling, 0 to 1."""
    nll: float
    """Mean negative log likelihood after temperature scaling, in nats."""
    bins: tuple[ReliabilityBin, ...]
    """Reliability after temperature scaling, lowest probabilities first."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Agreement of probabilities with accuracy, as predicted and after temperature scaling."""

    bins: tuple[ReliabilityBin, ...]
    """Reliability as predicted, lowest probabilities first."""
    ece: float
    """Expected calibration error as predicted, 0 to 1."""
    brier: float
    """Multiclass Brier score, 0 to 2."""
    nll: float
    """Mean negative log likelihood as predicted, in nats."""
    scaling: FittedTemperature | None
    """The fitted temperature; None where no temperature could be fitted."""
    why_not_fitted: str | None
    """Reason for a missing temperature; None where a temperature was fitted."""

    @property
    def is_improved(self) -> bool:
        """Whether the fitted temperature leaves neither calibration error nor log likelihood worse."""
        return self.scaling is not None and self.scaling.ece <= self.ece and self.scaling.nll <= self.nll


def measure_calibration(predictions: LabeledPredictions, seed: int) -> Calibration:
    """Calibration as predicted, and after scaling by one fitted temperature.

    Args:
        predictions: Images with true and predicted classes; images of one group stay in one half of the
            cross-validation.
        seed: Seed of the two halves.
    """
    probabilities, truth, correct = predictions.probabilities, predictions.truth, predictions.correct
    rows = np.arange(len(truth))
    bins, ece = reliability(probabilities.max(axis=1), correct)
    squares = np.einsum("nc,nc->n", probabilities, probabilities, dtype=np.float64)
    brier = float(np.mean(squares - 2 * probabilities[rows, truth].astype(np.float64) + 1))
    logits = np.log(np.maximum(probabilities, np.float32(SMALLEST_PROBABILITY)))
    logits -= logits.max(axis=1, keepdims=True)
    true_logits = logits[rows, truth]
    halves = (np.random.default_rng(seed).permutation(int(predictions.groups.max()) + 1) % 2 == 1)[predictions.groups]
    scaling, why = _scaling(logits, true_logits, correct, halves)
    return Calibration(bins, ece, brier, _mean_loss(logits, true_logits, 1.0), scaling, why)


def reliability(top: Float32Array, correct: BoolArray) -> tuple[tuple[ReliabilityBin, ...], float]:
    """Mean probability and accuracy in 15 equal bins of the top probability, and the expected calibration error.

    Args:
        top: (N,) largest probability of each image, 0 to 1.
        correct: (N,) whether the image is classified correctly.
    """
    places = np.minimum((top * BINS).astype(int), BINS - 1)
    images = np.bincount(places, minlength=BINS)
    at_least_one = np.maximum(images, 1)
    confidence = np.bincount(places, top, minlength=BINS) / at_least_one
    accuracy = np.bincount(places, correct, minlength=BINS) / at_least_one
    bins = tuple(
        ReliabilityBin(
            lower=place / BINS,
            upper=(place + 1) / BINS,
            images=int(count),
            probability=float(confidence[place]) if count else None,
            accuracy=float(accuracy[place]) if count else None,
        )
        for place, count in enumerate(images)
    )
    return bins, float((np.abs(confidence - accuracy) * images).sum() / len(top))


def fitted_temperature(logits: Float32Array, true_logits: Float32Array) -> float | None:
    """The divisor of logits with the least negative log likelihood; None if that is not between 0.05 and 20.

    Args:
        logits: (N, C) logits, of which the largest of each row is 0.
        true_logits: (N,) the logit of the true class in each row.
    """
    low, high = np.log(_TEMPERATURES)
    best = minimize_scalar(
        lambda exponent: _mean_loss(logits, true_logits, float(np.exp(exponent))), bounds=(low, high), method="bounded"
    )
    return float(np.exp(best.x)) if low + 0.01 < best.x < high - 0.01 else None


def _scaling(
    logits: Float32Array, true_logits: Float32Array, correct: BoolArray, second: BoolArray
) -> tuple[FittedTemperature | None, str | None]:
    """A cross-validated temperature and None, or None and the reason why no temperature can be fitted.

    Args:
        second: (N,) whether an image is in the second half.
    """
    if not second.any():
        return None, "two images or groups are needed, to try it on others than it is fitted on"
    parts = (slice(None), ~second, second)
    of_all, of_first, of_second = (fitted_temperature(logits[part], true_logits[part]) for part in parts)
    if of_all is None or of_first is None or of_second is None:
        low, high = _TEMPERATURES
        return None, (
            f"none between {low} and {high:g} is best: too few images, too few errors, or answers no better than chance"
        )
    top, losses = np.empty((2, len(true_logits)), np.float32)
    for half, temperature in ((~second, of_second), (second, of_first)):
        losses[half], top[half] = _losses(logits[half], true_logits[half], temperature)
    bins, ece = reliability(top, correct)
    return FittedTemperature(of_all, ece, float(losses.mean(dtype=np.float64)), bins), None


def _losses(logits: Float32Array, true_logits: Float32Array, temperature: float) -> tuple[Float32Array, Float32Array]:
    """(N,) negative log likelihoods, and (N,) top probabilities."""
    total = np.exp(logits / np.float32(temperature)).sum(axis=1)
    return np.log(total) - true_logits / np.float32(temperature), 1 / total


def _mean_loss(logits: Float32Array, true_logits: Float32Array, temperature: float) -> float:
    return float(_losses(logits, true_logits, temperature)[0].mean(dtype=np.float64))
