"""Sets of labels that hold the true one as often as promised: an engine's conformal thresholds."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

_MOST_LEVELS = 16
_DIGEST_DIGITS = 16


@dataclass(frozen=True, slots=True)
class ConformalThresholds:
    """Thresholds of class-conditional conformal sets: a label is in the set if 1 - its probability is at most its own.

    Of each class, the sets of at least the share ``level`` of its images hold the label, if the images are of the kind
    that the thresholds were fitted on.
    """

    levels: Mapping[str, Mapping[str, float | None]]
    """Threshold of each label, 0 to 1, by the promised share of images, such as ``0.95``; None: in every set."""
    images: int
    """Number of images that the thresholds were fitted on."""

    @classmethod
    def from_values(cls, values: Any, labels: Sequence[str]) -> Self:
        """Thresholds from the values of a JSON object.

        Args:
            labels: The engine's labels.

        Raises:
            ValueError: If a value is missing, of another type or out of range, or the labels are not the engine's.
        """
        levels = values.get("levels") if isinstance(values, dict) else None
        if not isinstance(levels, dict) or not 1 <= len(levels) <= _MOST_LEVELS:
            raise ValueError(f"its conformal thresholds are no object with 1 to {_MOST_LEVELS} levels")
        images = values.get("images")
        if type(images) is not int or images < 0:
            raise ValueError(f"its conformal thresholds were fitted on {str(images)[:20]!r} images")
        for level, thresholds in levels.items():
            _check_level(level)
            if not isinstance(thresholds, dict) or set(thresholds) != set(labels):
                raise ValueError(f"its conformal thresholds at level {level} are of other labels than it has")
            if not all(map(_is_threshold, thresholds.values())):
                raise ValueError(f"a conformal threshold at level {level} is neither null nor a number from 0 to 1")
        ordered = {
            level: {label: None if (own := levels[level][label]) is None else float(own) for label in labels}
            for level in sorted(levels, key=float)
        }
        return cls(ordered, images)

    @property
    def coverages(self) -> tuple[float, ...]:
        """The promised shares of images, lowest first."""
        return tuple(map(float, self.levels))

    def in_every_set(self, level: float) -> tuple[str, ...]:
        """The labels that are in every set, because too few images of theirs were there to fit a threshold on."""
        return tuple(label for label, threshold in self.levels[str(level)].items() if threshold is None)

    def digest(self, level: float) -> str:
        """A short digest of the thresholds of a level, which tells those of one evaluation from those of another."""
        thresholds = json.dumps(list(self.levels[str(level)].items()))
        return hashlib.sha256(thresholds.encode()).hexdigest()[:_DIGEST_DIGITS]

    def label_sets(self, probabilities: npt.NDArray[np.float32], level: float) -> npt.NDArray[np.bool_]:
        """(N, C) whether each label is in the set of an image; a set may be empty.

        Args:
            probabilities: (N, C), 0 to 1.
            level: Promised share of images, one of `coverages`.
        """
        thresholds = [np.inf if own is None else own for own in self.levels[str(level)].values()]
        return np.asarray(nonconformity(probabilities) <= np.array(thresholds, np.float64))


def nonconformity(probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """How little labels conform to an image: 1 - probability, 0 to 1; in float64, which a threshold is compared in."""
    return np.asarray(np.clip(1 - probabilities.astype(np.float64), 0, 1))


def _check_level(level: str) -> None:
    """Refuse a level that is no number in (0, 1), or that is not written as Python writes it.

    Raises:
        ValueError: For such a level.
    """
    try:
        is_level = 0 < float(level) < 1 and str(float(level)) == level
    except ValueError:
        is_level = False
    if not is_level:
        raise ValueError(f"a level of its conformal thresholds is {level[:20]!r}, not such as 0.95")


def _is_threshold(value: object) -> bool:
    return value is None or (type(value) in (int, float) and 0 <= value <= 1)  # type: ignore[operator]
