"""Detect by their values what the outputs of an ONNX classifier are: logits, probabilities, or neither."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from batchcls.records import Logits

OutputKind = Literal["logits", "probabilities"]
OutputValues = npt.NDArray[np.float32]

LEAST_PROBABILITY = 1e-30
"""Probability that stands for 0, whose logarithm no engine could hold."""
_SUM_TOLERANCE = 0.02
"""Largest difference from 1 of a sum of probabilities that were rounded or clipped."""
_CONSTANT_SUM_TOLERANCE = 1e-3
"""Largest relative difference between sums that are constant, but neither 1 nor 100."""
_BOUNDED = ("Tanh", "Sigmoid", "HardSigmoid", "Softmax", "Exp")
"""Operators whose results are no logits, unless a logarithm follows."""


class UnclearOutputsError(ValueError):
    """Outputs that are not one number for each of several classes; the message says what the outputs are."""


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """Meaning of an ONNX classifier's outputs, and how many numbers they hold for each image."""

    kind: OutputKind
    numbers: int
    """Numbers that the file answers an image with; a single one is that of the second of two classes."""
    change: float = 0.0
    """Largest change of a probability, 0 to 1, by scaling an image's probabilities to a sum of 1."""

    @property
    def classes(self) -> int:
        """Number of classes, at least two."""
        return max(2, self.numbers)

    def logits(self, values: OutputValues) -> Logits:
        """The file's own answers, (N, numbers), as (N, classes) float32 logits with the same probabilities."""
        if self.kind == "probabilities":
            both = np.concatenate([1 - values, values], axis=1) if self.numbers == 1 else values
            return np.log(np.maximum(both, LEAST_PROBABILITY, dtype=np.float32))
        return np.concatenate([np.zeros_like(values), values], axis=1) if self.numbers == 1 else values


def detect_output_format(
    values: OutputValues, extremes: OutputValues, closing: frozenset[str], declared: str
) -> OutputFormat:
    """The meaning of a file's answers: probabilities if they sum to 1, or to another constant; else logits.

    Args:
        values: (N, numbers) answers to images of many kinds.
        extremes: (M, numbers) answers to inputs far beyond those of any image: a logit leaves 0..1 there.
        closing: Operators behind the last layer with weights; see `logits_edits.closing_operators`.
        declared: ``logits`` or ``probabilities``, as a recipe says; ``auto``: by the values.

    Raises:
        UnclearOutputsError: If the answers are neither, or may be both.
    """
    if declared == "logits":
        return OutputFormat("logits", values.shape[1])
    if not np.isfinite(values).all():
        raise UnclearOutputsError("some of its answers to drawn images are not numbers; check its weights")
    extremes = extremes[np.isfinite(extremes).all(axis=1)]
    all_values = np.concatenate([values, extremes])
    if np.ptp(all_values, axis=0).max() == 0:
        raise UnclearOutputsError(f"it answers every image with the same {_excerpt(values)}, whatever is on it")
    if "TopK" in closing:
        raise UnclearOutputsError("it ends in a TopK, which loses what class a value is of; export it without")
    single = values.shape[1] == 1
    kind = _kind_of_single(all_values, closing, declared) if single else _kind(values, all_values, closing, declared)
    if kind == "logits" or single:
        return OutputFormat(kind, values.shape[1])
    sums = values.sum(axis=1, keepdims=True)
    return OutputFormat(kind, values.shape[1], float(np.abs(values / sums - values / _full_share(sums)).max()))


def _kind(values: OutputValues, all_values: OutputValues, closing: frozenset[str], declared: str) -> OutputKind:
    """Kind of several outputs.

    Args:
        all_values: ``values`` and the answers to extremes.
    """
    sums = all_values.sum(axis=1, dtype=np.float64)
    full = _full_share(sums)
    low, high = all_values.min(), all_values.max()
    if declared == "probabilities":
        if low < -_SUM_TOLERANCE * full or sums.min() <= 0:
            raise UnclearOutputsError(
                f"a recipe says output = 'probabilities', but it answers {_excerpt(values)}; leave output out of it"
            )
        return "probabilities"
    if low >= -1e-3 * full and _sum_to(full, sums, np.ptp(all_values, axis=0).max()):
        return "probabilities"
    if np.array_equal(all_values, np.rint(all_values)):
        raise UnclearOutputsError(
            f"it answers with whole numbers, such as {_excerpt(values)}, which are no probabilities"
        )
    if "Sigmoid" in closing and low >= 0 and high <= 1:
        raise UnclearOutputsError(
            f"it ends in a Sigmoid over {values.shape[1]} outputs, so an image may have several labels at once; "
            "batchcls gives each just one"
        )
    if low >= 0 and high <= 1:
        raise UnclearOutputsError(
            f"its answers lie within 0 and 1 and sum to {sums.min():.3g} to {sums.max():.3g}, which may be "
            'probabilities or logits; say which in a recipe: output = "probabilities", or "logits"'
        )
    _refuse_changed(all_values, closing)
    return "logits"


def _refuse_changed(all_values: OutputValues, closing: frozenset[str]) -> None:
    """Refuse values computed from probabilities that a softmax does not turn back into those probabilities."""
    with np.errstate(over="ignore"):
        total = np.exp(-all_values.astype(np.float64)).sum(axis=1)
    if np.abs(total - 1).max() <= _SUM_TOLERANCE:
        raise UnclearOutputsError("it answers with negative logarithms of probabilities; export it without the sign")
    bounded = [name for name in (*_BOUNDED, "LogSoftmax") if name in closing]
    if bounded and not (closing & {"Log", "LogSoftmax"} and _are_logarithms(all_values)):
        raise UnclearOutputsError(
            f"it ends in {bounded[0]}, but its answers, within {all_values.min():.3g} and {all_values.max():.3g}, are "
            "no probabilities, nor their natural logarithms; export it without what follows its last layer, or say in "
            'a recipe: output = "logits"'
        )


def _are_logarithms(all_values: OutputValues) -> bool:
    """Whether the values are natural logarithms of probabilities; of a single number: log(p / (1 - p))."""
    if all_values.shape[1] == 1:
        return bool(all_values.max() > 0)
    with np.errstate(over="ignore", invalid="ignore"):
        sums = np.exp(all_values.astype(np.float64)).sum(axis=1)
        return bool(np.ptp(sums) <= _SUM_TOLERANCE * sums.max())


def _kind_of_single(all_values: OutputValues, closing: frozenset[str], declared: str) -> OutputKind:
    """Kind of a single output."""
    low, high = all_values.min(), all_values.max()
    if {"Softmax", "ReduceMax"} <= closing:
        raise UnclearOutputsError(
            "it answers with its largest probability alone, not saying of which class; export it without its last "
            "ReduceMax"
        )
    within = low >= -1e-3 and high <= 1 + 1e-3
    if declared == "probabilities" and not within:
        raise UnclearOutputsError(f"a recipe says output = 'probabilities', but it answers {low:.3g} to {high:.3g}")
    if np.array_equal(all_values, np.rint(all_values)) and not closing & {"Sigmoid", "HardSigmoid"}:
        raise UnclearOutputsError(
            "it answers with one whole number, such as the position of a class; export it without its last ArgMax"
        )
    if within:
        return "probabilities"
    _refuse_changed(all_values, closing)
    return "logits"


def _sum_to(full: float, sums: npt.NDArray[np.float64], spread: float) -> bool:
    """Whether all sums are ``full``; ``spread`` is the largest range of one output."""
    off = np.abs(sums / full - 1).max() if full > 0 else np.inf
    if full in (1.0, 100.0):
        return bool(off <= _SUM_TOLERANCE)
    return bool(off <= _CONSTANT_SUM_TOLERANCE and np.ptp(sums) < spread / 10)  # else the network hardly answers


def _full_share(sums: npt.NDArray[np.floating]) -> float:
    """Sum of an image's probabilities: 1, or 100 where they are percent, or any other."""
    middle = float(np.median(sums))
    return next((full for full in (1.0, 100.0) if abs(middle / full - 1) <= _SUM_TOLERANCE), middle)


def softmax(logits: Logits) -> OutputValues:
    """Probabilities, (N, classes) float32, 0 to 1; each row sums to 1."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def _excerpt(values: OutputValues) -> str:
    return f"({', '.join(f'{value:.4g}' for value in values[0][:4])}{', ...' if values.shape[1] > 4 else ''})"
