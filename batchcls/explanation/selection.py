"""Which images are worth explaining."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from batchcls.engine.manifest import sha256
from batchcls.errors import LabelsError, SlidesError
from batchcls.images.labels.labeled import LabeledImages
from batchcls.images.sources.folder import FolderSource
from batchcls.predictions.matching import label_codes, match_labels
from batchcls.predictions.provenance import rewriting
from batchcls.predictions.reader import PredictionsFile
from batchcls.records import Slide
from batchcls.storage.file_names import original, printable

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class ImageSelection:
    """Which images to explain, and for which class."""

    slides: tuple[Path, ...] = ()
    predictions: Path | None = None
    """What `batchcls run` wrote, to choose from instead of ``slides``: by ``wrong``, or by ``uncertain``."""
    wrong: int | None = None
    """So many of the most confident wrong ones, by ``truth``."""
    uncertain: int | None = None
    truth: Path | None = None
    split_folders: str = ""
    """Of ``truth``; see `LabeledImages.read`."""
    label: str | None = None
    """None: of each image, the predicted one."""
    limit: int = 100
    """Of ``slides``."""


@dataclass(frozen=True, slots=True)
class SelectedImages:
    truths: Mapping[Slide, str]
    """In the order of the output; empty where the truth is not known."""
    left_out: int = 0


def listed_images(asked: ImageSelection, is_ours: Callable[[Path], bool], console: Console) -> SelectedImages:
    """Images of SLIDES, evenly taken where there are more than the limit: folders are often sorted by class."""
    listing = FolderSource(asked.slides)
    found = [slide for slide in listing if not is_ours(Path(slide.file))]
    for unlisted in listing.unlisted:
        _say(console, f"warning: not listed: {printable(unlisted)}")
    if not found:
        raise SlidesError(f"no image was found in {', '.join(repr(str(path)) for path in asked.slides)}")
    count = min(len(found), asked.limit)
    return SelectedImages({found[place * len(found) // count]: "" for place in range(count)}, len(found) - count)


def predicted_images(
    asked: ImageSelection, checkpoint: Path, labels: Sequence[str], console: Console
) -> SelectedImages:
    """Images of a predictions file, the most confident wrong ones or the least certain ones first."""
    assert asked.predictions is not None  # noqa: S101  # for mypy: the caller looked
    predicted = PredictionsFile.read(asked.predictions, labels)
    for note in rewriting(predicted.metadata, predicted.labels, len(predicted.table)):
        _say(console, f"warning: {note}")
    _check_same_model(predicted, checkpoint, labels)
    truths: npt.NDArray[np.object_] = np.full(len(predicted.table), "", object)
    if asked.truth:
        truths = _truths(predicted, asked.truth, asked.split_folders, console)
    top = np.asarray(predicted.table["probability"].to_numpy(), np.float64)
    wanted = predicted.readable & np.isfinite(top)
    if asked.wrong:
        said = np.append(np.array(predicted.labels, object), "")[predicted.codes]
        wanted &= (truths != "") & (truths != said)
    order = np.argsort(-top if asked.wrong else top, kind="stable")
    rows = order[wanted[order]][: asked.wrong or asked.uncertain]
    if not len(rows):
        raise SlidesError(
            f"{str(asked.predictions)!r} holds no {'wrong' if asked.wrong else 'readable'} row to explain"
        )
    places = predicted.table.select(["root", "path"]).take(pa.array(rows)).to_pylist()
    slides = (Slide(original(place["root"]), original(place["path"])) for place in places)
    return SelectedImages(dict(zip(slides, truths[rows].tolist(), strict=True)))


def _check_same_model(predicted: PredictionsFile, checkpoint: Path, labels: Sequence[str]) -> None:
    engine = predicted.metadata.get("engine")
    recorded = engine.get("checkpoint_sha256") if isinstance(engine, dict) else None
    if predicted.metadata and recorded != (found := sha256(checkpoint)):
        raise LabelsError(
            f"{str(predicted.path)!r} was predicted by a trained file with SHA-256 {recorded or '(not recorded)'}, "
            f"{str(checkpoint)!r} has {found}; explain with that one, or classify again: batchcls run"
        )
    if predicted.labels != tuple(labels):
        raise LabelsError(
            f"{str(predicted.path)!r} has the labels {list(predicted.labels)}, the model has "
            f"{list(labels)}; name them in the order of the predictions: --labels A,B,..."
        )


def _truths(predicted: PredictionsFile, truth: Path, split_folders: str, console: Console) -> npt.NDArray[np.object_]:
    """(rows,) what each is, by the same rules of matching as `batchcls evaluate`; empty where that is not known."""
    labelled = LabeledImages.read(truth, split_folders=split_folders, known=predicted.labels)
    table = labelled.of_split(None, truth)
    codes = label_codes(table["label"], predicted.labels)
    if codes.null_count:
        strange = sorted(set(table["label"].filter(pc.is_null(codes)).to_pylist()))
        raise LabelsError(
            f"{str(truth)!r} has labels {strange[:_SHOWN]} that the model has not; it has {list(predicted.labels)}"
        )
    roots = predicted.table["root"].cast(pa.string())
    match = match_labels(table["path"], str(labelled.root), predicted.table["path"], roots)
    if match.by in ("file name", "end of path"):
        _say(console, f"warning: --truth was matched by {match.by} alone, for no path is the same")
    for note in labelled.notes:
        _say(console, f"warning: {note}")
    truths: npt.NDArray[np.object_] = np.full(len(predicted.table), "", object)
    there = match.rows >= 0
    truths[match.rows[there]] = np.array(predicted.labels, object)[codes.to_numpy()[there]]
    return truths


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False)
