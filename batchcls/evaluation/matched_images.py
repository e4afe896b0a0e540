"""The images that have a true label and a prediction, matched between the two files."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batchcls.errors import LabelsError
from batchcls.evaluation.bootstrap import image_blocks
from batchcls.evaluation.labeled_predictions import LabeledPredictions
from batchcls.evaluation.results import MatchCounts, Unmatched
from batchcls.predictions.label_matching import LabelMatch, excerpt, label_codes, match_labels, two_files
from batchcls.predictions.reader import PredictionsFile

_EXAMPLES = 3
_LARGEST_PROBABILITY = 1.001
"""Largest value that counts as a probability: 1, and what another precision or text may round 1 to."""


@dataclass(frozen=True, slots=True)
class MatchedImages:
    """The readable images that have a true label and a prediction, one row each, and counts of all others."""

    images: pa.Table
    """(N rows) ``path`` and ``label`` of the truth, ``group`` if known, and ``file``, the path that was classified."""
    rows: pa.Table
    """(N rows) rows of the predictions file, in the order of ``images``."""
    root: Path
    """Folder that paths of ``images`` are relative to."""
    predictions: LabeledPredictions
    counts: MatchCounts
    groups: int | None
    """Number of groups in the truth; None where the truth names none."""


def match_images(predictions: PredictionsFile, truth: Path, table: pa.Table, root: Path, seed: int) -> MatchedImages:
    """The images of a table of labels that have a readable row in a predictions file.

    Args:
        predictions: The predictions file.
        truth: Path of the labels, for error texts.
        table: Labeled images: ``path``, ``label``, and ``group`` if known.
        root: Folder that paths of ``table`` are relative to.
        seed: Seed of the blocks that are resampled if the truth names no groups.

    Raises:
        LabelsError: If the truth has a label that the engine does not have, no labeled image has a readable row, or a
            probability lies outside 0 to 1.
    """
    codes = _label_codes(table, truth, predictions)
    match = match_labels(table["path"], str(root), predictions)
    has_row = match.rows >= 0
    taken = predictions.table.unify_dictionaries().take(pa.array(match.rows[has_row]))
    matched = replace(predictions, table=taken)
    readable = matched.readable
    if not readable.any():
        raise LabelsError(f"none of the {len(readable):,} images in common could be read: {dict(matched.errors)}")
    positions = np.flatnonzero(has_row)[readable]
    answers = replace(matched, table=matched.table.filter(pa.array(readable)))
    images = table.take(pa.array(positions)).append_column("file", answers.files)
    groups, is_grouped = image_blocks(len(positions), seed), "group" in images.column_names
    if is_grouped:
        groups = np.asarray(images["group"].combine_chunks().dictionary_encode().indices.to_numpy()).astype(np.int64)
    labeled = LabeledPredictions(
        np.asarray(codes.to_numpy())[positions].astype(np.int32),
        answers.codes,
        _probabilities(answers),
        groups,
        is_grouped,
    )
    counts = _counts(match, table, predictions, matched, two_files(root, images))
    return MatchedImages(images, answers.table, root, labeled, counts, int(groups.max()) + 1 if is_grouped else None)


def _label_codes(table: pa.Table, truth: Path, predictions: PredictionsFile) -> pa.ChunkedArray:
    """(rows,) position of each label among the engine's."""
    codes = label_codes(table["label"], predictions.labels)
    if codes.null_count:
        unknown = pc.unique(table["label"].filter(pc.is_null(codes)))
        raise LabelsError(
            f"{str(truth)!r} has {len(unknown):,} labels that the engine of {str(predictions.path)!r} does not: "
            f"{excerpt(unknown)}; it has {', '.join(map(repr, predictions.labels))}: name them as the engine does"
        )
    return codes


def _probabilities(answers: PredictionsFile) -> npt.NDArray[np.float32]:
    probabilities = answers.probabilities
    if not np.isfinite(probabilities).all() or probabilities.min() < 0 or probabilities.max() > _LARGEST_PROBABILITY:
        raise LabelsError(f"{str(answers.path)!r} holds probabilities outside 0..1; classify the images again")
    return probabilities


def _counts(
    match: LabelMatch,
    table: pa.Table,
    predictions: PredictionsFile,
    matched: PredictionsFile,
    differing: Sequence[str] | None,
) -> MatchCounts:
    unused = np.ones(len(predictions.table), bool)
    unused[match.rows[match.rows >= 0]] = False
    return MatchCounts(
        by=match.by,
        images=len(matched.table),
        readable=int(matched.readable.sum()),
        unreadable=dict(matched.errors),
        truth_without_prediction=_unmatched(table["path"], match.rows < 0),
        prediction_without_truth=_unmatched(predictions.files, unused),
        two_files=(differing[0], differing[1]) if differing else None,
    )


def _unmatched(paths: pa.ChunkedArray, is_unmatched: npt.NDArray[np.bool_]) -> Unmatched:
    examples = paths.take(np.flatnonzero(is_unmatched)[:_EXAMPLES]).to_pylist()
    return Unmatched(int(is_unmatched.sum()), tuple(examples))
