"""Contact sheets of chosen images, and the table of misclassified images."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv

from batchcls.evaluation.label_issues import LabelIssues
from batchcls.evaluation.matched_images import MatchedImages
from batchcls.images.captions import class_caption
from batchcls.images.sources import slide_below
from batchcls.images.thumbnails import contact_sheet, jpeg, thumbnail
from batchcls.predictions.row_key import slides_of
from batchcls.storage.spreadsheet_cells import text_cell

_COLUMNS, _SIDE_PX = 6, 160


def image_sheet(matched: MatchedImages, rows: npt.NDArray[np.int64], labels: Sequence[str]) -> bytes | None:
    """A contact sheet as JPEG of images with their true and their predicted label.

    Args:
        matched: All images.
        rows: (n,) positions of the images to show, in their order.
        labels: Labels in the order of the probabilities.

    Returns:
        None if there are no rows, or none of their files is an image that can be opened now.
    """
    names = [class_caption(label, labels) for label in labels]
    predictions, paths = matched.predictions, matched.images["path"].take(rows).to_pylist()
    classes = zip(predictions.truth[rows], predictions.predicted[rows], strict=True)
    answers = [f"{names[truth]} ->\n{names[predicted]}" for truth, predicted in classes]
    images = zip(slides_of(matched.rows.take(rows)), paths, answers, predictions.top[rows], strict=True)
    cells = [
        (
            thumbnail(slide, _SIDE_PX) or thumbnail(slide_below(matched.root, path), _SIDE_PX),
            f"{path}\n{answer} {probability:.4f}",
        )
        for slide, path, answer, probability in images
    ]
    if all(picture is None for picture, _ in cells):
        return None
    return jpeg(contact_sheet(cells, _COLUMNS, _SIDE_PX))


def image_csv(matched: MatchedImages, rows: npt.NDArray[np.int64]) -> bytes:
    """A CSV table with path, true label, predicted label and probability of images.

    Args:
        matched: All images.
        rows: (n,) positions of the images to list, in their order.
    """
    predicted, images = matched.rows.take(rows), matched.images.take(rows)
    words = {"path": images["path"], "truth": images["label"], "predicted": predicted["label"]}
    return _csv(words, {"probability": predicted["probability"]})


def label_issue_csv(matched: MatchedImages, issues: LabelIssues) -> bytes:
    """A CSV table with path, given label, likelier label, and probability of the given label, of candidates.

    Args:
        matched: All images.
        issues: Candidates for wrong labels.
    """
    predicted, images = matched.rows.take(issues.rows), matched.images.take(issues.rows)
    words = {"path": images["path"], "given_label": images["label"], "likelier_label": predicted["label"]}
    return _csv(words, {"score": pa.array(issues.scores)})


def _csv(words: Mapping[str, pa.ChunkedArray], numbers: Mapping[str, pa.ChunkedArray | pa.Array]) -> bytes:
    """A CSV table of columns of text, which no spreadsheet runs, and of columns of numbers."""
    texts = {
        name: pa.array(map(text_cell, column.cast(pa.string()).to_pylist()), pa.string())
        for name, column in words.items()
    }
    stream = pa.BufferOutputStream()
    pyarrow.csv.write_csv(pa.table({**texts, **numbers}), stream)
    return bytes(stream.getvalue())
