"""The accuracy of novel and of familiar images apart, for predictions that say which are novel."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from batchcls.evaluation.bootstrap import Estimate
from batchcls.evaluation.labeled_predictions import LabeledPredictions
from batchcls.predictions.answer_columns import MANY_NOVEL, NOVEL, NOVELTY
from batchcls.predictions.reader import PredictionsFile


@dataclass(frozen=True, slots=True)
class GroupAccuracy:
    """The images that are novel, or those that are familiar."""

    images: int
    accuracy: Estimate
    """Accuracy, with Wilson's 95 % interval."""


@dataclass(frozen=True, slots=True)
class NoveltyAccuracy:
    """Accuracy of novel and of familiar images."""

    familiar: GroupAccuracy
    novel: GroupAccuracy
    unjudged: int
    """Number of images of which the predictions do not say whether they are novel."""
    most_novel: npt.NDArray[np.int64]
    """(K,) positions of the images with a novelty, the most novel first; of equally novel ones, the surest first."""

    @property
    def share(self) -> float | None:
        """The share of novel images among those of which it is known; None if it is known of none."""
        known = self.familiar.images + self.novel.images
        return self.novel.images / known if known else None

    @property
    def is_many(self) -> bool:
        """Whether so many images are novel that the engine was hardly made for them."""
        return self.share is not None and self.share > MANY_NOVEL


def accuracy_by_novelty(file: PredictionsFile, images: LabeledPredictions) -> NoveltyAccuracy | None:
    """The accuracy of novel and of familiar images.

    Args:
        file: Rows of the predictions file, in the order of ``images``.
        images: Their true and predicted classes.

    Returns:
        None if the file has no columns of novelty.
    """
    if not all(map(file.has, (NOVELTY, NOVEL))):
        return None
    novelty, novel = file.numbers(NOVELTY), file.numbers(NOVEL)
    order = np.lexsort((-images.top, -novelty))  # NaN stands last
    return NoveltyAccuracy(
        familiar=_accuracy(images, novel == 0),
        novel=_accuracy(images, novel == 1),
        unjudged=int(np.isnan(novel).sum()),
        most_novel=order[: np.count_nonzero(~np.isnan(novelty))],
    )


def is_not_novel(file: PredictionsFile) -> npt.NDArray[np.bool_]:
    """(N,) whether an image has a set of labels: not if it is novel; all images have, if that is unknown."""
    return file.numbers(NOVEL) != 1 if file.has(NOVEL) else np.ones(len(file.table), bool)


def _accuracy(images: LabeledPredictions, mask: npt.NDArray[np.bool_]) -> GroupAccuracy:
    count, right = int(mask.sum()), int(images.correct[mask].sum())
    if not count:
        return GroupAccuracy(0, Estimate(None, None, None, "no image"))
    if images.is_grouped:
        return GroupAccuracy(
            count, Estimate(right / count, None, None, "no interval: images of one group depend on one another")
        )
    interval = binomtest(right, count).proportion_ci(method="wilson")
    return GroupAccuracy(count, Estimate(right / count, float(interval.low), float(interval.high), None))
