"""An explanation: images become overlays of where the network sees what it says, a contact sheet, and a table."""

import csv
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image
from rich.console import Console

from batchcls import machine
from batchcls.checkpoint import Network, load_network, recorded_recipe
from batchcls.contact_sheet import contact_sheet, jpeg, thumbnail
from batchcls.decoders import DEFAULT, open_decoder
from batchcls.discover import Listing
from batchcls.errors import CheckpointError, EngineError, LabelsError, OutputError, RecipeError, SlidesError
from batchcls.grad_cam import SIDE_PX, GradCam, HeatMap, overlay, side_by_side, stands_out
from batchcls.labelled import Labelled
from batchcls.manifest import Manifest, sha256
from batchcls.matched import matched, shown
from batchcls.networks import ARCHITECTURES
from batchcls.postprocess import predictions
from batchcls.predicted import Predicted, original
from batchcls.recipe import Recipe
from batchcls.records import Batch, Failure, Pixels, Preprocess, Slide, printable

CONTACT_SHEET = "contact_sheet.jpg"
TABLE = "explained.csv"
_OVERLAY = re.compile(r"\d{4,}_.*\.cam\.png")
_COLUMNS = ("file", "overlay", "label", "probability", "truth", "class_explained", "note")
_NOTHING = "nothing stands out"
_BATCH = 8
_LARGEST_IMAGE_PIXELS = 200_000_000
_LONGEST_NAME = 48
_SHEET_IMAGES, _SHEET_COLUMNS, _SHEET_SIDE_PX = 100, 6, 200
"""Two columns an image."""


@dataclass(frozen=True, slots=True)
class Model:
    """A trained file that can be looked into."""

    checkpoint: Path
    network: Network
    recipe: Recipe


@dataclass(frozen=True, slots=True)
class Asked:
    """Which images to explain, and for which class."""

    slides: tuple[Path, ...] = ()
    predictions: Path | None = None
    """What `batchcls run` wrote, to choose from instead of ``slides``: by ``wrong``, or by ``uncertain``."""
    wrong: int | None = None
    """So many of the most confident wrong ones, by ``truth``."""
    uncertain: int | None = None
    truth: Path | None = None
    label: str | None = None
    """None: of each image, the predicted one."""
    limit: int = 100
    """Of ``slides``."""


@dataclass(frozen=True, slots=True)
class Explained:
    """What came of it."""

    images: int
    flat: int
    """Of ``images``, those whose map shows nothing."""
    unreadable: int
    left_out: int
    """Images of SLIDES beyond the limit."""


@dataclass(frozen=True, slots=True)
class _Chosen:
    truths: Mapping[Slide, str]
    """In the order of the output; empty where the truth is not known."""
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class _Row:
    """What the table and the contact sheet show of an image."""

    values: tuple[str, ...]
    """By `_COLUMNS`."""
    cells: tuple[tuple[Image.Image, str], ...] = ()
    """Of the contact sheet."""


@dataclass(frozen=True, slots=True)
class _Found:
    """What the network says of an image, and where it looked."""

    slide: Slide
    size: tuple[int, int]
    """Width and height of the file, in pixels."""
    pixels: Pixels
    """(H, W, 3) uint8 RGB, as the network sees it."""
    heat: HeatMap
    label: str
    probability: float
    explained: str
    """The class that ``heat`` is of."""


def checkpoint_model(checkpoint: Path, recipe: Path | None, values: Mapping[str, Any]) -> Model:
    """A trained file with what the recipe, ``values`` by the names of its keys, and the file itself tell of it.

    Raises:
        CheckpointError: If the file cannot be read, is another network than was said, or an ONNX file.
        RecipeError: If the recipe, or the labels, do not fit it.
    """
    if checkpoint.suffix == ".onnx":
        raise CheckpointError(
            f"{str(checkpoint)!r} is an ONNX file, whose layers cannot be looked into; "
            "Grad-CAM needs the checkpoint that it was exported from: batchcls explain CHECKPOINT ..."
        )
    found = recorded_recipe(checkpoint)
    first = Recipe.compose(recipe, values, found)
    network = load_network(checkpoint, first.architecture, transform_input=first.preprocess.transform_input)
    return _fitting(
        checkpoint, network, Recipe.compose(recipe, {**values, "architecture": network.architecture}, found)
    )


def engine_model(folder: Path, checkpoint: Path | None) -> Model:
    """The trained file that an engine was built from, with the engine's labels and preprocessing.

    Args:
        checkpoint: None: a file of the right name and content in the engine folder, or beside it.

    Raises:
        EngineError: If the engine was built from ONNX, or its trained file is not there.
        CheckpointError: If the trained file cannot be read.
    """
    manifest = Manifest.read(folder)
    if manifest.architecture not in ARCHITECTURES or manifest.checkpoint.endswith(".onnx"):
        raise EngineError(
            f"engine {str(folder)!r} was built from the ONNX file {manifest.checkpoint!r}, whose layers cannot be "
            "looked into; Grad-CAM needs the checkpoint that it was exported from: batchcls explain CHECKPOINT ..."
        )
    path = checkpoint or _beside(folder, manifest)
    if (found := sha256(path)) != manifest.checkpoint_sha256:
        raise EngineError(
            f"engine {str(folder)!r} was built from {manifest.checkpoint!r} with SHA-256 {manifest.checkpoint_sha256}, "
            f"{str(path)!r} has {found}; name the right file: --checkpoint FILE"
        )
    recipe = Recipe(
        manifest.architecture, manifest.labels, temperature=manifest.temperature, preprocess=manifest.preprocess
    )
    transform_input = manifest.preprocess.transform_input
    return _fitting(path, load_network(path, manifest.architecture, transform_input=transform_input), recipe)


def _beside(folder: Path, manifest: Manifest) -> Path:
    name = Path(original(manifest.checkpoint)).name
    for path in (folder / name, folder.absolute().parent / name):
        if path.is_file() and sha256(path) == manifest.checkpoint_sha256:
            return path
    raise EngineError(
        f"Grad-CAM needs {manifest.checkpoint!r}, the trained file of engine {str(folder)!r} with SHA-256 "
        f"{manifest.checkpoint_sha256}, which is neither in that folder nor beside it; name it: --checkpoint FILE"
    )


def _fitting(checkpoint: Path, network: Network, recipe: Recipe) -> Model:
    if len(recipe.labels) != network.classes:
        named = f"{len(recipe.labels)} labels were named" if recipe.labels else "none was named"
        raise RecipeError(
            f"{str(checkpoint)!r} has {network.classes} classes, {named}; name them in its order: --labels A,B,..."
        )
    return Model(checkpoint, network, recipe)


def explain(model: Model, out: Path, asked: Asked, *, overwrite: bool, console: Console) -> Explained:
    """Write overlays, `CONTACT_SHEET` and `TABLE` into the folder ``out``.

    Args:
        overwrite: Whether those of an earlier explanation may be replaced, once the new ones are whole.

    Raises:
        RecipeError: If the class is none of the model's.
        SlidesError: If there is no image.
        LabelsError: If the predictions or the truth cannot be used, or are not of this model.
        OutputError: If ``out`` may not, or can not, be written.
    """
    if asked.label is not None and asked.label not in model.recipe.labels:
        raise RecipeError(f"--class {asked.label!r} is none of the model's labels {list(model.recipe.labels)}")
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not overwrite)):
        raise OutputError(f"{str(out)!r} is not empty; choose another --out, or replace what is there with --overwrite")
    chosen = _predicted(model, asked, console) if asked.predictions else _listed(asked, out, console)
    with _whole_folder(out) as folder:
        rows = _rows(model, asked, chosen.truths, folder, console)
        cells = [cell for row in rows for cell in row.cells]
        (folder / CONTACT_SHEET).write_bytes(jpeg(contact_sheet(cells, _SHEET_COLUMNS, _SHEET_SIDE_PX)))
        with (folder / TABLE).open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows([_COLUMNS, *(row.values for row in rows)])
    notes = Counter(row.values[-1] for row in rows)
    images, flat = notes[""] + notes[_NOTHING], notes[_NOTHING]
    return Explained(images, flat, len(rows) - images, chosen.left_out)


def _listed(asked: Asked, out: Path, console: Console) -> _Chosen:
    """Images of SLIDES, evenly taken where there are more than the limit: folders are often sorted by class."""
    listing = Listing(asked.slides)
    found = [slide for slide in listing if not _is_ours(Path(slide.file), out)]
    for unlisted in listing.unlisted:
        _say(console, f"warning: not listed: {printable(unlisted)}")
    if not found:
        raise SlidesError(f"no image was found in {', '.join(repr(str(path)) for path in asked.slides)}")
    count = min(len(found), asked.limit)
    return _Chosen({found[place * len(found) // count]: "" for place in range(count)}, len(found) - count)


def _predicted(model: Model, asked: Asked, console: Console) -> _Chosen:
    """Images of a predictions file, the most confident wrong ones or the least certain ones first."""
    assert asked.predictions is not None  # noqa: S101  # for mypy: the caller looked
    predicted = Predicted.read(asked.predictions)
    _check_same_model(predicted, model)
    truths: npt.NDArray[np.object_] = np.full(len(predicted.table), "", object)
    if asked.truth:
        truths = _truths(predicted, asked.truth, console)
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
    return _Chosen(dict(zip(slides, truths[rows].tolist(), strict=True)))


def _check_same_model(predicted: Predicted, model: Model) -> None:
    engine = predicted.metadata.get("engine")
    recorded = engine.get("checkpoint_sha256") if isinstance(engine, dict) else None
    if recorded != (found := sha256(model.checkpoint)):
        raise LabelsError(
            f"{str(predicted.path)!r} was predicted by a trained file with SHA-256 {recorded or '(not recorded)'}, "
            f"{str(model.checkpoint)!r} has {found}; explain with that one, or classify again: batchcls run"
        )
    if predicted.labels != model.recipe.labels:
        raise LabelsError(
            f"{str(predicted.path)!r} has the labels {list(predicted.labels)}, the model has "
            f"{list(model.recipe.labels)}; name them in the order of the predictions: --labels A,B,..."
        )


def _truths(predicted: Predicted, truth: Path, console: Console) -> npt.NDArray[np.object_]:
    """(rows,) what each is, by the same rules of matching as `batchcls evaluate`; empty where that is not known."""
    labelled = Labelled.read(truth)
    labels = np.array(labelled.table["label"].to_pylist(), object)
    if strange := sorted(set(labels) - set(predicted.labels)):
        raise LabelsError(
            f"{str(truth)!r} has labels that the model does not{shown(strange)}; it has {list(predicted.labels)}"
        )
    roots = predicted.table["root"].cast(pa.string())
    match = matched(labelled.table["path"], str(labelled.root), predicted.table["path"], roots)
    if match.by == "file name":
        _say(console, "warning: --truth was matched by file name alone, for no path is the same")
    truths: npt.NDArray[np.object_] = np.full(len(predicted.table), "", object)
    there = match.rows >= 0
    truths[match.rows[there]] = labels[there]
    return truths


def _rows(model: Model, asked: Asked, truths: Mapping[Slide, str], folder: Path, console: Console) -> list[_Row]:
    """A row for each slide, in their order; the overlays are written into ``folder`` as images are decoded."""
    preprocess = model.recipe.preprocess
    grad_cam = GradCam(model.network.module, model.network.architecture, preprocess)
    numbers = {slide: number for number, slide in enumerate(truths, 1)}
    rows: dict[Slide, _Row] = {}
    decoder = open_decoder(
        DEFAULT, preprocess, batch_size=_BATCH, threads=machine.cores(), max_pixels=_LARGEST_IMAGE_PIXELS
    )
    with closing(decoder), closing(decoder.decode(truths)) as batches:
        for batch in batches:
            for item in _looked_into(model, asked.label, grad_cam, batch):
                slide, truth = item.slide, truths[item.slide]
                if isinstance(item, Failure):
                    _say(console, f"unreadable: {printable(slide.file)}: {item.text}")
                    rows[slide] = _Row((printable(slide.file), "", "", "", truth, "", item.text))
                else:
                    rows[slide] = _drawn(item, truth, numbers[slide], preprocess, folder)
    return [rows[slide] for slide in truths]


def _looked_into(model: Model, label: str | None, grad_cam: GradCam, batch: Batch) -> Iterator[_Found | Failure]:
    yield from batch.failures
    if not batch.slides:
        return
    pixels, labels = cast(Pixels, batch.pixels), model.recipe.labels
    answers = predictions(grad_cam.logits(pixels) / np.float32(model.recipe.temperature))
    classes = answers.labels.tolist() if label is None else [labels.index(label)] * len(pixels)
    for row, heat in enumerate(grad_cam.maps(pixels, classes)):
        slide, said = batch.slides[row], answers.labels[row]
        if not answers.finite[row]:
            yield Failure(slide, "no answer", "the network's output is not a number")
            continue
        probability = float(answers.probabilities[row, said])
        yield _Found(slide, batch.sizes[row], pixels[row], heat, labels[said], probability, labels[classes[row]])


def _drawn(found: _Found, truth: str, number: int, preprocess: Preprocess, folder: Path) -> _Row:
    note = "" if stands_out(found.heat) else _NOTHING
    plain = _seen(found, preprocess)
    hot = overlay(plain, found.heat)
    answer = f"{found.label} {found.probability:.3f}"
    about = [f"map of {found.explained}"] * (found.explained != found.label) + [note] * bool(note)
    of = [f"truth: {truth}"] * bool(truth)
    path = printable(found.slide.path)
    name = _file_name(number, found.slide)
    captions = "; ".join([os.path.basename(path), *of]), "; ".join([answer, *about])
    side_by_side([(plain, captions[0]), (hot, captions[1])]).save(folder / name)
    values = (printable(found.slide.file), name, found.label, f"{found.probability:.6f}", truth, found.explained, note)
    if number > _SHEET_IMAGES:
        return _Row(values)
    return _Row(values, ((_small(plain), "\n".join([path, *of])), (_small(hot), "\n".join([answer, "; ".join(about)]))))


def _seen(found: _Found, preprocess: Preprocess) -> Image.Image:
    """The part of a file that the network sees, in its own proportions; the network's pixels if Pillow cannot."""
    width, height = found.size
    left, top, right, bottom = preprocess.region(width, height)
    zoom = SIDE_PX / max(right - left, bottom - top)
    sides = (width, height) if preprocess.resize == "stretch" else preprocess.size_px[::-1]
    size = max(1, round(SIDE_PX * sides[0] / max(sides))), max(1, round(SIDE_PX * sides[1] / max(sides)))
    whole = thumbnail(found.slide.file, round(max(width, height) * min(1, zoom)))
    if whole is None:
        return Image.fromarray(found.pixels).resize(size, Image.Resampling.BICUBIC)
    across, down = whole.width / width, whole.height / height
    box = left * across, top * down, min(right * across, whole.width), min(bottom * down, whole.height)
    return whole.resize(size, Image.Resampling.BICUBIC, box)


def _small(picture: Image.Image) -> Image.Image:
    small = picture.copy()
    small.thumbnail((_SHEET_SIDE_PX, _SHEET_SIDE_PX))
    return small


def _file_name(number: int, slide: Slide) -> str:
    """The number tells equal names apart; of the name, what every file system takes."""
    stem = os.path.splitext(os.path.basename(printable(slide.path)))[0]
    safe = re.sub(r"[^\w-]+", "_", stem).strip("_")[:_LONGEST_NAME] or "image"
    return f"{number:04d}_{safe}.cam.png"


def _is_ours(path: Path, out: Path) -> bool:
    named = path.name in (CONTACT_SHEET, TABLE) or _OVERLAY.fullmatch(path.name)
    return bool(named) and os.path.realpath(path.parent) == os.path.realpath(out)


@contextmanager
def _whole_folder(out: Path) -> Iterator[Path]:
    """A folder beside ``out`` whose files go there if all went well; of an earlier explanation nothing is left then."""
    out = out.absolute()
    scratch = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        folder = scratch / "new"
        folder.mkdir()
        yield folder
        if not out.exists() or not any(out.iterdir()):
            folder.replace(out)
            return
        made = {path.name for path in folder.iterdir()}
        for name in sorted(made, key=lambda name: name == TABLE):  # which names the others, and so comes last
            (folder / name).replace(out / name)
        for path in out.iterdir():
            if path.name not in made and _is_ours(path, out):
                path.unlink()
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"cannot write below {str(out)!r}: {reason}; choose another --out") from error
    finally:
        if scratch:
            shutil.rmtree(scratch, ignore_errors=True)


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False)
