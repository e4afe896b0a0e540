"""Selective classification: the error rate of the most certain images, and a threshold for accepting images."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import beta

_CURVE_POINTS = 500
_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class AcceptanceThreshold:
    """A threshold on the top probability for accepting images without a human, and the errors above it."""

    probability: float
    """Smallest accepted top probability."""
    accepted: int
    """Number of accepted images."""
    coverage: float
    """Accepted share of all readable images."""
    to_a_human: int
    """Number of readable images that are not accepted."""
    errors: int
    """Number of misclassified images among the accepted ones."""
    error_rate: float
    """Misclassified share of the accepted images."""
    error_rate_at_most: float
    """Upper 95 % confidence bound of the error rate (Clopper-Pearson, one-sided), for independent images."""


@dataclass(frozen=True, slots=True)
class RiskCoverage:
    """The risk-coverage curve: the error rate of the most certain images, by their share of all images."""

    aurc: float
    """Area under the risk-coverage curve."""
    coverage: tuple[float, ...]
    """(P,) accepted share of all images, rising; P is at most 500."""
    error_rate: tuple[float, ...]
    """(P,) misclassified share of the accepted images."""
    probability: tuple[float, ...]
    """(P,) smallest accepted top probability, falling."""
    wanted_error_rate: float
    """Largest error rate that the user allows among accepted images."""
    threshold: AcceptanceThreshold | None
    """Lowest threshold with at most the wanted error rate; None if there is none."""


def risk_coverage_curve(
    top: npt.NDArray[np.float32], correct: npt.NDArray[np.bool_], wanted_error_rate: float
) -> RiskCoverage:
    """The risk-coverage curve of N images, its area, and the threshold for an error rate.

    Images of equal probability are accepted together; for the area, each image counts with the error rate at its
    probability.

    Args:
        top: (N,) largest probability of each image, 0 to 1; N is 1 or more.
        correct: (N,) whether the image is classified correctly.
        wanted_error_rate: Largest error rate allowed among accepted images, 0 to 1.
    """
    order = np.argsort(-top, kind="stable")
    errors, top = np.cumsum(~correct[order]), top[order]
    ends = np.flatnonzero(np.append(top[1:] != top[:-1], True))
    accepted, errors, top = ends + 1, errors[ends], top[ends]
    risk = errors / accepted
    drawn = np.unique(np.linspace(0, len(ends) - 1, _CURVE_POINTS).astype(int))
    allowed = np.flatnonzero(risk <= wanted_error_rate)
    threshold = None
    if len(allowed):
        last = allowed[-1]
        threshold = _threshold(float(top[last]), int(accepted[last]), int(errors[last]), images=len(order))
    return RiskCoverage(
        aurc=float((risk * np.diff(accepted, prepend=0)).sum() / len(order)),
        coverage=tuple((accepted[drawn] / len(order)).tolist()),
        error_rate=tuple(risk[drawn].tolist()),
        probability=tuple(top[drawn].tolist()),
        wanted_error_rate=wanted_error_rate,
        threshold=threshold,
    )


def _threshold(probability: float, accepted: int, errors: int, images: int) -> AcceptanceThreshold:
    bound = 1.0 if errors == accepted else float(beta.ppf(_CONFIDENCE, errors + 1, accepted - errors))
    return AcceptanceThreshold(
        probability=probability,
        accepted=accepted,
        coverage=accepted / images,
        to_a_human=images - accepted,
        errors=errors,
        error_rate=errors / accepted,
        error_rate_at_most=bound,
    )
