"""The results of an evaluation as frozen types, from which files, pages and terminal text are rendered."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from batchcls.evaluation.bootstrap import ClassMetrics, OverallMetrics
from batchcls.evaluation.calibration import Calibration
from batchcls.evaluation.conformal import ConformalSets
from batchcls.evaluation.label_issues import LabelIssues
from batchcls.evaluation.metrics import AbsentClasses
from batchcls.evaluation.novelty_accuracy import NoveltyAccuracy
from batchcls.evaluation.risk_coverage import RiskCoverage


@dataclass(frozen=True, slots=True)
class ClassResult:
    """Numbers of images and metrics of one class."""

    label: str
    images: int
    """Number of readable images whose true label is this class."""
    predicted: int
    """Number of readable images that were predicted to be of this class."""
    metrics: ClassMetrics


@dataclass(frozen=True, slots=True)
class Unmatched:
    """Images that have a label and no prediction, or a prediction and no label."""

    count: int
    """Number of images."""
    examples: tuple[str, ...]
    """Paths of the first few images."""


@dataclass(frozen=True, slots=True)
class MatchCounts:
    """How labeled images and predicted rows were matched, with counts of both."""

    by: str
    """Matching rule, one of the values of `batchcls.predictions.label_matching.LabelMatch.by`."""
    images: int
    """Number of labeled images that have a row in the predictions."""
    readable: int
    """Number of matched images that could be read when they were classified."""
    unreadable: Mapping[str, int]
    """Number of matched images that could not be read, by kind of error."""
    truth_without_prediction: Unmatched
    prediction_without_truth: Unmatched
    two_files: tuple[str, str] | None
    """A labeled file and its classified partner whose bytes differ; None where none of the compared files differ."""


@dataclass(frozen=True, slots=True)
class PredictionsSummary:
    """The predictions file that was evaluated."""

    path: str
    """Path as the user gave it, printable."""
    sha256: str
    rows: int
    metadata: Mapping[str, Any]
    """Metadata that `batchcls run` wrote into the file, with None for NaN and infinity; empty if lost since."""
    notes: tuple[str, ...]
    """Sentences on changes to the file since `batchcls run` wrote it."""

    @property
    def engine_temperature(self) -> float | None:
        """The temperature that the engine divided its logits by; None if the file no longer records one."""
        if not self.metadata:
            return None
        engine = self.metadata.get("engine")
        temperature = engine.get("temperature", 1.0) if isinstance(engine, dict) else 1.0
        return float(temperature) if isinstance(temperature, int | float) else None


@dataclass(frozen=True, slots=True)
class TruthSummary:
    """The labels that the predictions were compared with."""

    path: str
    """Path as the user gave it, printable."""
    rows: int
    """Number of labeled images of the evaluated split."""
    group_by: str | None
    """Column or pattern that names the group of an image; None if none was given."""
    split: str | None
    """The evaluated split, train, val or test; None: all splits."""
    has_splits: bool
    left_out: int
    """Number of labeled images in other splits, or in no split."""
    unlabeled: int
    """Number of images outside every class folder."""
    split_folders: str | None
    """The value of ``--split-folders``; None if none was given."""
    notes: tuple[str, ...]
    """Sentences on how the labels were read."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All results of an evaluation, with a description of its inputs."""

    predictions: PredictionsSummary
    truth: TruthSummary
    seed: int
    """Seed of the bootstrap, and of the halves for cross-validating a temperature and for conformal sets."""
    resamples: int
    """Number of bootstrap resamples of every interval."""
    matched: MatchCounts
    groups: int | None
    """Number of groups that were resampled; None where images were resampled one by one."""
    overall: OverallMetrics
    classes: tuple[ClassResult, ...]
    """Results of each class, in the engine's order."""
    absent_classes: AbsentClasses
    confusion: npt.NDArray[np.int64]
    """(C, C) number of images, true class by row, predicted class by column, in the engine's order."""
    calibration: Calibration
    risk_coverage: RiskCoverage
    label_issues: LabelIssues
    novelty: NoveltyAccuracy | None
    """Accuracy of novel and of familiar images; None for predictions without novelty."""
    conformal: ConformalSets | None
    """Sets of labels that hold the true one as often as promised; None for an engine of one class."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of the engine, in the order of its probabilities."""
        return tuple(result.label for result in self.classes)

    @property
    def errors(self) -> int:
        """The number of misclassified images."""
        return int(np.sum(self.confusion) - np.trace(self.confusion))

    @property
    def unreadable(self) -> int:
        """The number of matched images that could not be read."""
        return sum(self.matched.unreadable.values())

    @property
    def accuracy_with_unreadable_as_wrong(self) -> float:
        """The accuracy over all matched images, in which an unreadable image counts as misclassified."""
        return int(np.trace(self.confusion)) / self.matched.images

    @property
    def recommended_temperature(self) -> float | None:
        """The temperature to build the engine with: the fitted one times the engine's own.

        None if the fitted one improves nothing, or if the predictions no longer record the engine's own.
        """
        before, scaling = self.predictions.engine_temperature, self.calibration.scaling
        if before is None or scaling is None or not self.calibration.is_improved:
            return None
        return before * scaling.temperature
