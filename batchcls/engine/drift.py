"""The drift of a run: in which ways its images, as a whole, are others than those of a reference."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from batchcls.engine.drift_kinds import DriftKind, Values, drift_kinds
from batchcls.engine.drift_reference import BLOCK_IMAGES, DriftReference
from batchcls.engine.measure_sums import MeasureSums, fewest_reference_images
from batchcls.engine.measures import DISTANCE_PREFIX

Counts = npt.NDArray[np.int64]
LABELS_KIND = "labels"
"""The kind of drift in which other shares of the images have each label."""
_USUAL_SHARES = 0.25
"""Part of the images that may have other labels than the reference's without a drift."""
_CHANCE_DEVIATIONS = 2


@dataclass(frozen=True, slots=True)
class DriftEffect:
    """The size of one kind of drift."""

    kind: str
    effect: float
    """Shift of the mean of measures, in deviations of such a mean; or, for labels, a share of the images, 0 to 1."""
    threshold: float
    """The size from which on it is a drift."""
    words: str
    """Description of images that drift so, such as ``darker``."""
    sentence: str
    """The effect in a sentence, with its size."""

    @property
    def relative(self) -> float:
        """The size by its threshold: a drift is larger than 1."""
        return abs(self.effect) / self.threshold

    @property
    def is_drift(self) -> bool:
        """Whether the images drift in this way."""
        return self.relative > 1

    @property
    def is_cause(self) -> bool:
        """Whether the kind is a property of the images, and not what a network makes of them."""
        return self.kind != LABELS_KIND and not self.kind.startswith(DISTANCE_PREFIX)


@dataclass(frozen=True, slots=True)
class Drift:
    """The drift of a set of images."""

    images: int
    """Images with a label and measures."""
    effects: tuple[DriftEffect, ...] = ()
    """Those that are drifts first: properties of the images, then what the network makes of them; the largest first."""
    note: str | None = None
    """Why there are no effects; None where there are."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds in which the images drift."""
        return tuple(effect.kind for effect in self.effects if effect.is_drift)

    def values(self) -> dict[str, Any]:
        """JSON values."""
        effects = [{**asdict(effect), "is_drift": effect.is_drift} for effect in self.effects]
        return {"images": self.images, "note": self.note, "kinds": list(self.kinds), "effects": effects}


def measure_drift(sums: MeasureSums, reference: DriftReference | None, labels: Sequence[str]) -> Drift:
    """The drift of the images of ``sums`` against a reference.

    Args:
        labels: The labels, by position; the same for both.
    """
    images = int(sums.measured.sum())
    if reference is None:
        enough = fewest_reference_images(len(labels))
        return Drift(
            images,
            note=f"drift is unknown: the engine has learned from too few images to tell it; {enough:,} are enough",
        )
    if sums.names != reference.measures or len(sums.images) != len(reference.images):
        return Drift(images, note="drift is unknown: the reference has other measures or labels")
    counts = np.where(reference.measured > 0, sums.measured, 0)
    if counts.sum() < BLOCK_IMAGES:
        return Drift(
            images, note=f"drift is unknown: {BLOCK_IMAGES} images are the fewest, and {counts.sum()} have measures"
        )
    shift = counts / counts.sum() @ (sums.means - reference.means)
    variances = reference.variances(counts[None])
    effects = [
        _effect(kind, reference, shift, float(kind.effects(reference.measures, shift[None], variances)[0]))
        for kind in drift_kinds(reference.measures)
    ]
    effects.append(label_drift(sums.images, reference.images, labels))
    return Drift(images, tuple(sorted(effects, key=_rank)))


def _rank(effect: DriftEffect) -> tuple[bool, bool, float]:
    return not effect.is_drift, not effect.is_cause, -effect.relative


def _effect(kind: DriftKind, reference: DriftReference, shift: Values, effect: float) -> DriftEffect:
    threshold = reference.thresholds[kind.name]
    word = kind.words[int(effect < 0)]
    by = dict(zip(reference.measures, shift.tolist(), strict=True))
    if abs(effect) > threshold:
        sentence = f"The images are {word} than the reference's: {_figures(kind, by)}"
    else:
        sentence = f"No drift of {kind.name.replace('_', ' ')}: {_figures(kind, by)}"
    sentence += f" ({abs(effect):.1f} deviations; drift above {threshold:.1f})."
    return DriftEffect(kind.name, effect, threshold, word, sentence)


def _figures(kind: DriftKind, by: Mapping[str, float]) -> str:
    """The change of a kind's measures in words."""
    match kind.name:
        case "brightness":
            return f"mean optical density {by['brightness']:+.3f}"
        case "color":
            return f"optical density against green's {by['color_red']:+.3f} in red and {by['color_blue']:+.3f} in blue"
        case "compression":
            steps, detail = (math.exp(by[name]) for name in kind.measures)
            return f"steps between blocks of 8 pixels times {steps:.2f}, detail in color times {detail:.2f}"
    noun = {"contrast": "contrast", "sharpness": "fine detail"}.get(kind.name, "distance")
    return f"{noun} times {math.exp(by[kind.name]):.2f}"


def label_drift(here: Counts, there: Counts, labels: Sequence[str]) -> DriftEffect:
    """How far the shares of the labels lie apart: the part of the images that would need another label to be alike.

    Args:
        here: (labels,) number of images with each label.
        there: (labels,) the same of the reference.
    """
    shares, usual = (counts / max(counts.sum(), 1) for counts in (here, there))
    effect = float(np.abs(shares - usual).sum() / 2)
    chance = usual * (1 - usual) * (1 / max(here.sum(), 1) + 1 / max(there.sum(), 1))
    threshold = _USUAL_SHARES + _CHANCE_DEVIATIONS * float(np.sqrt(chance).sum() / 2)
    most = int(np.abs(shares - usual).argmax())
    sentence = (
        f"{'Other shares of the labels than' if effect > threshold else 'The shares of the labels are near'} the "
        f"reference's: {labels[most]!r} has {100 * shares[most]:.0f} % of the images, there {100 * usual[most]:.0f} %."
    )
    return DriftEffect(LABELS_KIND, effect, threshold, "with other shares of labels", sentence)
