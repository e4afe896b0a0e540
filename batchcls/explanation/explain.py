"""An explanation: images become overlays of where the network sees what it says, a contact sheet, and a table."""

import csv
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image
from rich.console import Console

from batchcls import machine
from batchcls.engine.postprocess import predictions
from batchcls.errors import OutputError, RecipeError
from batchcls.explanation.grad_cam import SIDE_PX, GradCam, HeatMap, overlay, side_by_side, stands_out
from batchcls.explanation.selection import ImageSelection, SelectedImages, listed_images, predicted_images
from batchcls.images.decoders import DEFAULT, open_decoder
from batchcls.images.decoders.base import postponed_error
from batchcls.images.thumbnails import contact_sheet, jpeg, thumbnail
from batchcls.networks.trained import TrainedFile
from batchcls.records import Batch, Failure, Pixels, Preprocess, Slide
from batchcls.storage.atomic import kind_of, writing
from batchcls.storage.file_names import printable
from batchcls.storage.own_folder import OwnFolder
from batchcls.storage.scratch import scratch_folder
from batchcls.storage.spreadsheet_cells import text_cell

CONTACT_SHEET = "contact_sheet.jpg"
TABLE = "explained.csv"
_OVERLAY = re.compile(r"\d{4,}_.*\.cam\.png")
_COLUMNS = ("file", "overlay", "label", "probability", "truth", "class_explained", "note")
_NOTHING = "nothing stands out"
_BATCH = 8
_LARGEST_IMAGE_PIXELS = 200_000_000
_LONGEST_NAME = 48
_SHEET_IMAGES, _SHEET_COLUMNS, _SHEET_SIDE_PX = 100, 6, 200
"""The first images only, two columns each."""


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


def explain_images(
    model: TrainedFile, out: Path, asked: ImageSelection, *, overwrite: bool, console: Console
) -> Explained:
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
    if os.path.exists(out) and (not out.is_dir() or (any(out.iterdir()) and not overwrite)):
        raise OutputError(f"{str(out)!r} is not empty; choose another --out, or replace what is there with --overwrite")
    chosen = _chosen(model, asked, out, console)
    with _whole_folder(out) as folder:
        rows = _rows(model, asked, chosen.truths, folder, console)
        cells = [cell for row in rows for cell in row.cells]
        (folder / CONTACT_SHEET).write_bytes(jpeg(contact_sheet(cells, _SHEET_COLUMNS, _SHEET_SIDE_PX)))
        with (folder / TABLE).open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows([_COLUMNS, *(map(text_cell, row.values) for row in rows)])
    notes = Counter(row.values[-1] for row in rows)
    images, flat = notes[""] + notes[_NOTHING], notes[_NOTHING]
    return Explained(images, flat, len(rows) - images, chosen.left_out)


def _chosen(model: TrainedFile, asked: ImageSelection, out: Path, console: Console) -> SelectedImages:
    if asked.predictions:
        return predicted_images(asked, model.checkpoint, model.recipe.labels, console)
    return listed_images(asked, lambda path: _is_ours(path, out), console)


def _rows(
    model: TrainedFile, asked: ImageSelection, truths: Mapping[Slide, str], folder: Path, console: Console
) -> list[_Row]:
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
            if batch.postponed:
                raise postponed_error(batch.postponed, "free some, or leave them out")
            for item in _looked_into(model, asked.label, grad_cam, batch):
                slide, truth = item.slide, truths[item.slide]
                if isinstance(item, Failure):
                    _say(console, f"unreadable: {printable(slide.file)}: {item.text}")
                    rows[slide] = _Row((printable(slide.file), "", "", "", truth, "", item.text))
                else:
                    rows[slide] = _drawn(item, truth, numbers[slide], preprocess, folder)
    return [rows[slide] for slide in truths]


def _looked_into(model: TrainedFile, label: str | None, grad_cam: GradCam, batch: Batch) -> Iterator[_Found | Failure]:
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
    path = printable(found.slide.path).replace("\n", "?")  # a caption's lines are its own
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
    return _is_made_here(path.name) and os.path.realpath(path.parent) == os.path.realpath(out)


def _is_made_here(name: str) -> bool:
    return name in (CONTACT_SHEET, TABLE) or _OVERLAY.fullmatch(name) is not None


@contextmanager
def _whole_folder(out: Path) -> Iterator[Path]:
    """A folder beside ``out`` whose files go there if all went well; of an earlier explanation nothing is left then."""
    out = out.absolute()
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        if kind_of(out) is not None:
            OwnFolder(out).close()  # before anything is looked into
        with scratch_folder(out.parent) as scratch:
            folder = scratch / "new"
            folder.mkdir()
            yield folder
            if kind_of(out) is None:
                folder.rename(out)
                return
            with OwnFolder(folder) as made, OwnFolder(out) as own:
                _put(made, own)


def _put(made: OwnFolder, own: OwnFolder) -> None:
    names = made.names()
    older = [name for name in own.names() if name not in names and _is_made_here(name)]
    for name in (*names, *older):
        own.check_file(name)
    for name in sorted(names, key=lambda name: name == TABLE):  # which names the others, and so comes last
        made.move(name, own)
    for name in older:
        own.remove(name)


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False)
