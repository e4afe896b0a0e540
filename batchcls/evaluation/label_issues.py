"""Labels of the truth that may be wrong, by confident learning on the predicted probabilities."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from cleanlab.filter import find_label_issues

from batchcls.evaluation.labeled_predictions import LabeledPredictions

_LEAST_IMAGES = 20
"""Below this number of images, the mean probability of a class says nothing."""


@dataclass(frozen=True, slots=True)
class LabelIssues:
    """Images whose given label may be wrong: candidates to look at, and no verdict."""

    rows: npt.NDArray[np.int64]
    """(K,) positions of the images, the likeliest wrong first."""
    scores: npt.NDArray[np.float32]
    """(K,) predicted probability of the given label, 0 to 1: the lower, the likelier is the label wrong."""
    by_class: tuple[int, ...]
    """(C,) number of candidates by their given label, in the engine's order."""
    why: str | None
    """Reason why no label could be judged; None where they were."""


def judge_labels(images: LabeledPredictions) -> LabelIssues:
    """The candidates for wrong labels among images.

    A candidate's label is not the most probable one, and so it is among the misclassified images too: of these, it is
    one of as many as cleanlab estimates to have a wrong label rather than a wrong prediction, class by class.
    """
    if why := _why_not(images):
        return _result(images, np.empty(0, np.int64), why)
    try:
        with warnings.catch_warnings():
            # That a class has one image or none, which is said elsewhere.
            warnings.filterwarnings("ignore", "May not flag all label issues", UserWarning)
            # n_jobs=1: cleanlab starts no processes.
            flags: Any = find_label_issues(images.truth, np.minimum(images.probabilities, 1), n_jobs=1)
    except (ValueError, TypeError, ArithmeticError) as error:
        reason = " ".join(str(error).split())
        return _result(images, np.empty(0, np.int64), f"cleanlab cannot judge these probabilities: {reason}")
    rows = np.flatnonzero(flags)
    order = np.argsort(images.probabilities[rows, images.truth[rows]], kind="stable")
    return _result(images, rows[order], None)


def _why_not(images: LabeledPredictions) -> str | None:
    """The reason why labels cannot be judged at all; None if they can."""
    if len(np.unique(images.truth)) == 1:
        return "all images are of one class"
    if len(images.truth) < _LEAST_IMAGES:
        return f"there are fewer than {_LEAST_IMAGES} images"
    if not np.isfinite(images.probabilities).all():
        return "some probabilities are no numbers"
    return None


def _result(images: LabeledPredictions, rows: npt.NDArray[np.int64], why: str | None) -> LabelIssues:
    given = images.truth[rows]
    by_class = np.bincount(given, minlength=images.classes)
    return LabelIssues(rows, images.probabilities[rows, given], tuple(by_class.tolist()), why)
