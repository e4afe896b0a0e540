"""The kinds of drift: which measures make each, how large it is, and what it is called."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from batchcls.engine.measures import DISTANCE_PREFIX

Values = npt.NDArray[np.float64]
_LEAST_DISTANCE = 1e-3


@dataclass(frozen=True, slots=True)
class DriftKind:
    """One way in which the images of a run can differ from those of a reference."""

    name: str
    measures: tuple[str, ...]
    direction: tuple[int, ...] | None = None
    """For each measure 1 if only growth counts, -1 if only decline; None: all together, either way."""
    threshold: float = 3.5
    """Smallest threshold of the effect."""
    words: tuple[str, str] = ("", "")
    """What the images are if the effect is above zero, and if it is below."""

    def effects(self, names: Sequence[str], shifts: Values, variances: Values) -> Values:
        """(K,) the size of the drift of K sets of images, in deviations of a set's mean from the reference.

        An effect has a sign if the kind has one measure that may change either way.

        Args:
            names: Names of the M measures.
            shifts: (K, M) mean measures less those of the reference.
            variances: (K, M, M) the covariance of ``shifts`` in sets that do not drift.
        """
        columns = [list(names).index(name) for name in self.measures]
        shift, variance = shifts[:, columns], variances[:, columns][:, :, columns]
        if self.direction is not None:
            deviations = np.sqrt(np.diagonal(variance, axis1=1, axis2=2))
            return np.asarray((shift / deviations * self.direction).max(axis=1).clip(0))
        if len(columns) == 1:
            return np.asarray(shift[:, 0] / np.sqrt(variance[:, 0, 0]))
        weighted = np.linalg.solve(variance, shift[:, :, None])[:, :, 0]
        return np.asarray(np.sqrt((shift * weighted).sum(axis=1).clip(0)))


_IMAGE_KINDS = (
    DriftKind("brightness", ("brightness",), None, 3.5, ("darker", "brighter")),
    DriftKind("color", ("color_red", "color_blue", "stain_red", "stain_blue"), None, 5.0, ("of another color", "")),
    DriftKind("contrast", ("contrast",), None, 3.5, ("richer in contrast", "poorer in contrast")),
    DriftKind("sharpness", ("sharpness",), None, 3.5, ("sharper", "more blurred")),
    DriftKind("compression", ("block_edges", "color_detail"), (1, -1), 3.5, ("compressed harder", "")),
)


def drift_kinds(names: Sequence[str]) -> tuple[DriftKind, ...]:
    """The kinds of drift that can be told by these measures; a distance drifts only by growth."""
    known = [kind for kind in _IMAGE_KINDS if set(kind.measures) <= set(names)]
    distances = [
        DriftKind(name, (name,), (1,), 3.5, (f"stranger by {name.removeprefix(DISTANCE_PREFIX)}", ""))
        for name in names
        if name.startswith(DISTANCE_PREFIX)
    ]
    return (*known, *distances)


def drift_values(names: Sequence[str], measures: npt.NDArray[np.floating]) -> Values:
    """(N, M) measures on the scale on which they are averaged: distances, which have long tails, as logarithms."""
    values = np.array(measures, np.float64)
    for column, name in enumerate(names):
        if name.startswith(DISTANCE_PREFIX):
            values[:, column] = np.log(np.maximum(values[:, column], _LEAST_DISTANCE))
    return values
