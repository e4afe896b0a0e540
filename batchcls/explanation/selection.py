"""Select the images to explain: evenly spaced ones of folders, or wrong or uncertain ones of a predictions file."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
from rich.console import Console

from batchcls.engine.manifest import sha256
from batchcls.errors import LabelsError, SlidesError
from batchcls.images.labels.labeled_images import LabeledImages
from batchcls.images.sources import open_source
from batchcls.predictions.integrity import rewrite_notes
from batchcls.predictions.label_matching import label_codes, match_labels
from batchcls.predictions.reader import PredictionsFile
from batchcls.records import Slide
from batchcls.storage.file_names import printable

_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class ImageSelection:
    """The user's selection of the images to explain, and of the class to explain.

    Images come from ``slides``, or from ``predictions`` together with either ``wrong`` or ``uncertain``.
    """

    slides: tuple[Path, ...] = ()
    """Folders and image files."""
    predictions: Path | None = None
    """Predictions file of `batchcls run`; None: images come from ``slides``."""
    wrong: int | None = None
    """Number of misclassified images to explain, the most confident first; None: the option is not given."""
    uncertain: int | None = None
    """Number of images to explain, the least confident first; None: the option is not given."""
    truth: Path | None = None
    """Folder of class folders, or CSV or Parquet table, that names the true labels; None: unknown."""
    split_folders: str = ""
    """Folders of ``truth`` that hold the class folders of a split; see `LabeledImages.read`."""
    label: str | None = None
    """Label of the class to explain; None: the predicted class of each image."""
    limit: int = 100
    """Largest number of images of ``slides`` to explain."""


@dataclass(frozen=True, slots=True)
class SelectedImages:
    """The selected images with their true labels."""

    truths: Mapping[Slide, str]
    """True label of each image, in the order of the output; empty where the true label is unknown."""
    left_out: int = 0
    """Number of images left out because of the limit."""


def listed_images(selection: ImageSelection, is_output: Callable[[Path], bool], console: Console) -> SelectedImages:
    """The images of ``selection.slides``, or as many as the limit allows, evenly spaced in their list.

    They are evenly spaced because lists of images are often sorted by class.

    Args:
        selection: The user's selection, with slides.
        is_output: Says whether a file was written by an earlier explanation, and so is no image to explain.
        console: Console that warnings are printed to.

    Raises:
        SlidesError: If there is no image.
    """
    source = open_source(selection.slides)
    slides = [slide for slide in source if not is_output(Path(slide.file))]
    for unlisted in source.unlisted:
        _warn(console, f"not listed: {printable(unlisted)}")
    if not slides:
        raise SlidesError(f"no image was found in {', '.join(repr(str(path)) for path in selection.slides)}")
    count = min(len(slides), selection.limit)
    return SelectedImages({slides[place * len(slides) // count]: "" for place in range(count)}, len(slides) - count)


def predicted_images(
    selection: ImageSelection, checkpoint: Path, labels: Sequence[str], console: Console
) -> SelectedImages:
    """The images of ``selection.predictions`` that are most confidently wrong, or least certain, in that order.

    Args:
        selection: The user's selection, with a predictions file.
        checkpoint: Trained file of the model to explain.
        labels: Labels of that model, in the order of its outputs.
        console: Console that warnings are printed to.

    Raises:
        SlidesError: If no row is wrong, or readable if ``selection.wrong`` is None.
        LabelsError: If the predictions or the truth cannot be used, or are not of this model.
    """
    assert selection.predictions is not None  # noqa: S101  # for mypy: the caller checked
    predictions = PredictionsFile.read(selection.predictions, labels)
    for note in rewrite_notes(predictions.metadata, predictions.labels, len(predictions.table)):
        _warn(console, note)
    _check_same_model(predictions, checkpoint, labels)
    truths: npt.NDArray[np.object_] = np.full(len(predictions.table), "", object)
    if selection.truth:
        truths = _truths(predictions, selection.truth, selection.split_folders, console)
    top = np.asarray(predictions.table["probability"].to_numpy(), np.float64)
    qualifies = predictions.readable & np.isfinite(top)
    if selection.wrong:
        predicted = np.append(np.array(predictions.labels, object), "")[predictions.codes]
        qualifies &= (truths != "") & (truths != predicted)
    order = np.argsort(-top if selection.wrong else top, kind="stable")
    rows = order[qualifies[order]][: selection.wrong or selection.uncertain]
    if not len(rows):
        kind = "wrong" if selection.wrong else "readable"
        raise SlidesError(f"{str(selection.predictions)!r} holds no {kind} row to explain")
    return SelectedImages(dict(zip(predictions.slides(rows), truths[rows].tolist(), strict=True)))


def _check_same_model(predictions: PredictionsFile, checkpoint: Path, labels: Sequence[str]) -> None:
    engine = predictions.metadata.get("engine")
    recorded = engine.get("checkpoint_sha256") if isinstance(engine, dict) else None
    if predictions.metadata and recorded != (digest := sha256(checkpoint)):
        raise LabelsError(
            f"{str(predictions.path)!r} was predicted by a trained file with SHA-256 {recorded or '(not recorded)'}, "
            f"{str(checkpoint)!r} has {digest}; explain with that one, or classify again: batchcls run"
        )
    if predictions.labels != tuple(labels):
        raise LabelsError(
            f"{str(predictions.path)!r} has the labels {list(predictions.labels)}, the model has "
            f"{list(labels)}; name them in the order of the predictions: --labels A,B,..."
        )


def _truths(predictions: PredictionsFile, truth: Path, split_folders: str, console: Console) -> npt.NDArray[np.object_]:
    """(rows,) true label of each row, matched by the rules of `batchcls evaluate`; empty where it is unknown."""
    labeled = LabeledImages.read(truth, split_folders=split_folders, known=predictions.labels)
    table = labeled.of_split(None, truth)
    codes = label_codes(table["label"], predictions.labels)
    if codes.null_count:
        unknown = sorted(set(table["label"].filter(pc.is_null(codes)).to_pylist()))
        raise LabelsError(
            f"{str(truth)!r} has labels {unknown[:_EXAMPLES]} that the model does not have; it has "
            f"{list(predictions.labels)}"
        )
    match = match_labels(table["path"], str(labeled.root), predictions)
    if match.by in ("file name", "end of path"):
        _warn(console, f"--truth was matched by {match.by} alone, for no path is the same")
    for note in labeled.notes:
        _warn(console, f"{note}")
    truths: npt.NDArray[np.object_] = np.full(len(predictions.table), "", object)
    has_row = match.rows >= 0
    truths[match.rows[has_row]] = np.array(predictions.labels, object)[codes.to_numpy()[has_row]]
    return truths


def _warn(console: Console, warning: str) -> None:
    console.print(f"warning: {warning}", markup=False, highlight=False)
