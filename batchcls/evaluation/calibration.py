"""How far probabilities can be believed: reliability, one temperature that mends it, and what may be left to them."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.stats import beta

BINS = 15
LEAST_PROBABILITY = 1e-12
"""What a smaller probability counts as where its logarithm is taken."""
_CURVE_POINTS = 500
_TEMPERATURES = (0.05, 20.0)

Numbers = npt.NDArray[Any]


def calibration(
    probabilities: Numbers, truth: Numbers, predicted: Numbers, groups: Numbers, seed: int
) -> dict[str, Any]:
    """Reliability as it is, and after one temperature.

    Args:
        probabilities: (N, C) float32, 0 to 1; N is 1 or more.
        truth: (N,), from 0.
        predicted: (N,), from 0.
        groups: (N,), from 0 without a gap; images of one stay together where a temperature is tried.

    Returns:
        ``bins``, ``ece``, ``brier`` (0 to 2) and ``nll`` (natural logarithm); the same below ``temperature`` but for
        ``brier``, with ``fitted`` and, where that is None, ``why``.
    """
    rows, right = np.arange(len(truth)), truth == predicted
    bins, error = reliability(probabilities.max(axis=1), right)
    squares = np.einsum("nc,nc->n", probabilities, probabilities, dtype=np.float64)
    brier = float(np.mean(squares - 2 * probabilities[rows, truth].astype(np.float64) + 1))
    logits = np.log(np.maximum(probabilities, np.float32(LEAST_PROBABILITY)))
    logits -= logits.max(axis=1, keepdims=True)
    own = logits[rows, truth]
    found = {"bins": bins, "ece": error, "brier": brier, "nll": _mean_loss(logits, own, 1.0)}
    return found | {"temperature": _tempered(logits, own, right, groups, seed)}


def reliability(top: Numbers, right: Numbers) -> tuple[list[dict[str, Any]], float]:
    """Fifteen equal bins of the top probability, what each promised and kept; and the expected calibration error."""
    place = np.minimum((top * BINS).astype(int), BINS - 1)
    images = np.bincount(place, minlength=BINS)
    at_least_one = np.maximum(images, 1)
    promised = np.bincount(place, top, minlength=BINS) / at_least_one
    kept = np.bincount(place, right, minlength=BINS) / at_least_one
    bins = [
        {
            "from": code / BINS,
            "to": (code + 1) / BINS,
            "images": int(count),
            "probability": float(promised[code]) if count else None,
            "accuracy": float(kept[code]) if count else None,
        }
        for code, count in enumerate(images)
    ]
    return bins, float((np.abs(promised - kept) * images).sum() / len(top))


def fitted_temperature(logits: Numbers, own: Numbers) -> float | None:
    """What to divide logits by for the least negative log likelihood; None if that is not within 0.05 and 20.

    Args:
        logits: (N, C) float32, of which the largest of each row is 0.
        own: (N,) those of the true classes.
    """
    low, high = np.log(_TEMPERATURES)
    best = minimize_scalar(
        lambda exponent: _mean_loss(logits, own, float(np.exp(exponent))), bounds=(low, high), method="bounded"
    )
    return float(np.exp(best.x)) if low + 0.01 < best.x < high - 0.01 else None


def _tempered(logits: Numbers, own: Numbers, right: Numbers, groups: Numbers, seed: int) -> dict[str, Any]:
    """A temperature fitted on all images; and what it is worth, tried on each half as fitted on the other."""
    nothing: dict[str, Any] = {"fitted": None, "ece": None, "nll": None, "bins": None}
    second = (np.random.default_rng(seed).permutation(int(groups.max()) + 1) % 2 == 1)[groups]
    if not second.any():
        return nothing | {"why": "two images or groups are needed, to try it on others than it is fitted on"}
    fitted = [fitted_temperature(logits[part], own[part]) for part in (slice(None), second, ~second)]
    if None in fitted:
        low, high = _TEMPERATURES
        why = (
            f"none between {low} and {high:g} is best: too few images, too few errors, or answers no better than chance"
        )
        return nothing | {"why": why}
    top, losses = np.empty((2, len(own)), np.float32)
    for half, temperature in ((~second, fitted[1]), (second, fitted[2])):
        losses[half], top[half] = _losses(logits[half], own[half], temperature or 1.0)
    bins, error = reliability(top, right)
    return {"fitted": fitted[0], "ece": error, "nll": float(losses.mean(dtype=np.float64)), "bins": bins, "why": None}


def _losses(logits: Numbers, own: Numbers, temperature: float) -> tuple[Numbers, Numbers]:
    """(N,) negative log likelihoods, and (N,) top probabilities."""
    total = np.exp(logits / np.float32(temperature)).sum(axis=1)
    return np.log(total) - own / np.float32(temperature), 1 / total


def _mean_loss(logits: Numbers, own: Numbers, temperature: float) -> float:
    return float(_losses(logits, own, temperature)[0].mean(dtype=np.float64))


def risk_coverage(top: Numbers, right: Numbers, error_rate: float) -> dict[str, Any]:
    """Errors among the surest images, for every share of them; and from which probability on they are rare enough.

    Images of one probability share a fate. The area under the curve takes each image at the risk of its probability.

    Args:
        top: (N,) the largest probability; N is 1 or more.
        right: (N,)
        error_rate: The most that is wanted among those that are accepted.
    """
    order = np.argsort(-top, kind="stable")
    wrong, top = np.cumsum(~right[order]), top[order]
    ends = np.flatnonzero(np.append(top[1:] != top[:-1], True))
    accepted, wrong, top = ends + 1, wrong[ends], top[ends]
    risk = wrong / accepted
    shown = np.unique(np.linspace(0, len(ends) - 1, _CURVE_POINTS).astype(int))
    return {
        "aurc": float((risk * np.diff(accepted, prepend=0)).sum() / len(order)),
        "coverage": (accepted[shown] / len(order)).tolist(),
        "error_rate": risk[shown].tolist(),
        "probability": top[shown].tolist(),
        "wanted_error_rate": error_rate,
        "threshold": _threshold(top, accepted, wrong, np.flatnonzero(risk <= error_rate)),
    }


def _threshold(top: Numbers, accepted: Numbers, wrong: Numbers, allowed: Numbers) -> dict[str, Any] | None:
    if not len(allowed):
        return None
    images, taken, errors = (int(number) for number in (accepted[-1], accepted[allowed[-1]], wrong[allowed[-1]]))
    return {
        "probability": float(top[allowed[-1]]),
        "accepted": taken,
        "coverage": taken / images,
        "to_a_human": images - taken,
        "errors": errors,
        "error_rate": errors / taken,
        "error_rate_at_most": 1.0 if errors == taken else float(beta.ppf(0.95, errors + 1, taken - errors)),
    }
