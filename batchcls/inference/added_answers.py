"""Compute the answers of a run beyond labels and probabilities."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from batchcls.engine.manifest import Manifest
from batchcls.engine.measures import image_measures
from batchcls.engine.novelty import Novelty, tells_novel
from batchcls.engine.novelty_file import read_novelty
from batchcls.inference.answer_options import AnswerOptions
from batchcls.records import Features, Outputs, Predictions


class AddedAnswers:
    """Computes the values of a run's added columns.

    Args:
        folder: The engine folder.
        manifest: The folder's manifest.
        options: Answers that are wanted.
    """

    def __init__(self, folder: Path, manifest: Manifest, options: AnswerOptions) -> None:
        self._options = options
        self._novelty = read_novelty(folder, manifest) if options.measures else None
        self._appearance = manifest.features.appearance if manifest.features else slice(0, 0)
        self._conformal = manifest.conformal
        self._embedding = manifest.features.embedding if manifest.features else slice(0, 0)

    def to(self, predictions: Predictions, outputs: Outputs) -> Predictions:
        """``predictions`` with the added values, by column, as `batchcls.predictions.answer_columns` takes them."""
        added: dict[str, npt.NDArray[Any]] = {}
        if self._novelty and outputs.features.shape[1]:
            added |= self._novelty_columns(self._novelty, outputs.features)
        if self._options.embedding and outputs.features.shape[1]:
            added["embedding"] = _half(outputs.features[:, self._embedding])
        if self._conformal and self._options.coverage is not None:
            sets = self._conformal.label_sets(predictions.probabilities, self._options.coverage).astype(np.int8)
            sets[added.get("novel", np.zeros(len(sets))) > 0] = -1  # of what no image of the truth was like: void
            added["labels_set"] = sets
        return Predictions(predictions.labels, predictions.probabilities, predictions.finite, added)

    def _novelty_columns(self, novelty: Novelty, features: Features) -> dict[str, npt.NDArray[Any]]:
        scores = novelty.score(features)
        is_novel = np.where(np.isnan(scores.novelty), -1, scores.novelty >= self._options.novel_above)
        is_told = tells_novel(novelty.calibration_images, self._options.novel_above)
        return {
            "novelty": scores.novelty,
            "novel": is_novel.astype(np.int8) if is_told else np.full(len(features), -1, np.int8),
            "measures": image_measures(features[:, self._appearance], scores.distances),
        }


def _half(features: Features) -> npt.NDArray[np.float16]:
    """Features in float16; NaN in the rows of images of which one is larger than any float16."""
    with np.errstate(over="ignore"):
        values = features.astype(np.float16)
    values[~np.isfinite(values).all(axis=1)] = np.nan
    return values
