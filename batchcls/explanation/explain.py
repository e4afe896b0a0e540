"""Explain images by Grad-CAM: write overlays, a contact sheet and a table."""

import csv
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image
from rich.console import Console

from batchcls import machine
from batchcls.engine.postprocess import to_predictions
from batchcls.errors import RecipeError
from batchcls.explanation.grad_cam import GradCam, stands_out
from batchcls.explanation.output_folder import (
    CONTACT_SHEET,
    TABLE,
    check_explanation_folder,
    is_explanation_file,
    open_explanation_folder,
    overlay_name,
)
from batchcls.explanation.overlays import ImageExplanation, overlay, region_picture, side_by_side
from batchcls.explanation.selection import ImageSelection, SelectedImages, listed_images, predicted_images
from batchcls.images.captions import class_caption
from batchcls.images.decoders import DEFAULT, open_decoder
from batchcls.images.decoders.base import DecoderOptions, shortage_error
from batchcls.images.thumbnails import contact_sheet, jpeg
from batchcls.networks.recipe import Recipe
from batchcls.networks.trained_file import TrainedFile
from batchcls.records import Batch, Failure, Pixels, Slide
from batchcls.storage.file_names import printable
from batchcls.storage.spreadsheet_cells import text_cell

_COLUMNS = ("file", "overlay", "label", "probability", "truth", "class_explained", "note")
_FLAT = "nothing stands out"
_BATCH_SIZE = 8
_MAX_IMAGE_PIXELS = 200_000_000
_SHEET_IMAGES, _SHEET_COLUMNS, _SHEET_SIDE_PX = 100, 6, 200
"""Largest number of images in the contact sheet, two cells each; number of cells in a row; side of a cell."""


@dataclass(frozen=True, slots=True)
class ExplanationSummary:
    """Numbers of images of an explanation."""

    images: int
    """Number of explained images."""
    flat: int
    """Number of explained images whose heat map has no hot place."""
    unreadable: int
    """Number of images that could not be read, or for which the network's output is no number."""
    left_out: int
    """Number of images left out because of the limit of the selection."""


@dataclass(frozen=True, slots=True)
class _ListedImage:
    """An image in the table and in the contact sheet."""

    values: tuple[str, ...]
    """One cell for each of `_COLUMNS`."""
    cells: tuple[tuple[Image.Image, str], ...] = ()
    """Pictures and captions for the contact sheet; empty for images that do not fit into it."""


def explain_images(
    model: TrainedFile, out: Path, selection: ImageSelection, *, overwrite: bool, console: Console
) -> ExplanationSummary:
    """Write overlays, `CONTACT_SHEET` and `TABLE` into the folder ``out``, and return the numbers of images.

    Args:
        model: Trained file of the network to explain.
        out: Output folder; created if it is missing.
        selection: The images to explain, and the class to explain in each.
        overwrite: Whether files of an earlier explanation may be replaced, once the new files are whole.
        console: Console that warnings are printed to.

    Raises:
        RecipeError: If the model does not have the class.
        SlidesError: If there is no image.
        LabelsError: If the predictions or the truth cannot be used, or are not of this model.
        OutputError: If ``out`` may not, or cannot, be written.
    """
    if selection.label is not None and selection.label not in model.recipe.labels:
        raise RecipeError(f"--class {selection.label!r} is none of the model's labels {list(model.recipe.labels)}")
    check_explanation_folder(out, overwrite=overwrite)
    selected = _selected_images(model, selection, out, console)
    with open_explanation_folder(out) as folder:
        images = _explain(model, selection.label, selected.truths, folder, console)
        cells = [cell for image in images for cell in image.cells]
        (folder / CONTACT_SHEET).write_bytes(jpeg(contact_sheet(cells, _SHEET_COLUMNS, _SHEET_SIDE_PX)))
        with (folder / TABLE).open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows([_COLUMNS, *(map(text_cell, image.values) for image in images)])
    notes = Counter(image.values[-1] for image in images)
    explained, flat = notes[""] + notes[_FLAT], notes[_FLAT]
    return ExplanationSummary(explained, flat, len(images) - explained, selected.left_out)


def _selected_images(model: TrainedFile, selection: ImageSelection, out: Path, console: Console) -> SelectedImages:
    if selection.predictions:
        return predicted_images(selection, model.checkpoint, model.recipe.labels, console)
    return listed_images(selection, lambda path: is_explanation_file(path, out), console)


def _explain(
    model: TrainedFile, label: str | None, truths: Mapping[Slide, str], folder: Path, console: Console
) -> list[_ListedImage]:
    """Write an overlay for each slide of ``truths``, and return the rows of the table in the same order."""
    preprocess = model.recipe.preprocess
    grad_cam = GradCam(model.network.module, model.network.architecture, preprocess)
    numbers = {slide: number for number, slide in enumerate(truths, 1)}
    images: dict[Slide, _ListedImage] = {}
    decoder = open_decoder(DEFAULT, preprocess, DecoderOptions(_BATCH_SIZE, machine.cores(), _MAX_IMAGE_PIXELS))
    with closing(decoder), closing(decoder.decode(truths)) as batches:
        for batch in batches:
            if batch.postponed:
                raise shortage_error(batch.postponed, "free some, or leave them out")
            for result in _explain_batch(model, label, grad_cam, batch):
                slide, truth = result.slide, truths[result.slide]
                if isinstance(result, Failure):
                    line = f"unreadable: {printable(slide.file)}: {result.text}"
                    console.print(line, markup=False, highlight=False)
                    images[slide] = _ListedImage((printable(slide.file), "", "", "", truth, "", result.text))
                else:
                    file = folder / overlay_name(numbers[slide], slide.path)
                    in_sheet = numbers[slide] <= _SHEET_IMAGES
                    images[slide] = _write_overlay(result, truth, model.recipe, file, in_sheet=in_sheet)
    return [images[slide] for slide in truths]


def _explain_batch(
    model: TrainedFile, label: str | None, grad_cam: GradCam, batch: Batch
) -> Iterator[ImageExplanation | Failure]:
    """The explanation of every image of a batch, for the predicted class where ``label`` is None."""
    yield from batch.failures
    if not batch.slides:
        return
    pixels, labels = cast(Pixels, batch.pixels), model.recipe.labels
    answers = to_predictions(grad_cam.logits(pixels) / np.float32(model.recipe.temperature))
    classes = answers.labels.tolist() if label is None else [labels.index(label)] * len(pixels)
    for row, heat in enumerate(grad_cam.maps(pixels, classes)):
        slide, code = batch.slides[row], answers.labels[row]
        if not answers.finite[row]:
            yield Failure(slide, "no answer", "the network's output is not a number")
            continue
        yield ImageExplanation(
            slide=slide,
            size=batch.sizes[row],
            pixels=pixels[row],
            heat=heat,
            label=labels[code],
            probability=float(answers.probabilities[row, code]),
            explained_label=labels[classes[row]],
        )


def _write_overlay(
    explanation: ImageExplanation, truth: str, recipe: Recipe, file: Path, *, in_sheet: bool
) -> _ListedImage:
    """Write the plain picture and the overlay side by side into ``file``."""
    labels = recipe.labels
    note = "" if stands_out(explanation.heat) else _FLAT
    plain = region_picture(explanation, recipe.preprocess)
    hot = overlay(plain, explanation.heat)
    label, probability, explained_label = explanation.label, explanation.probability, explanation.explained_label
    answer = f"{class_caption(label, labels)} {probability:.3f}"
    is_other = explained_label != label
    remarks = [f"map of {class_caption(explained_label, labels)}"] * is_other + [note] * bool(note)
    truths = [f"truth: {class_caption(truth, labels)}"] * bool(truth)
    path = printable(explanation.slide.path).replace("\n", "?")  # a line break would begin a line of the caption
    captions = "; ".join([os.path.basename(path), *truths]), "; ".join([answer, *remarks])
    side_by_side([(plain, captions[0]), (hot, captions[1])]).save(file)
    slide_file = printable(explanation.slide.file)
    values = (slide_file, file.name, label, f"{probability:.6f}", truth, explained_label, note)
    if not in_sheet:
        return _ListedImage(values)
    under_plain, under_hot = "\n".join([path, *truths]), "\n".join([answer, "; ".join(remarks)])
    return _ListedImage(values, ((_small(plain), under_plain), (_small(hot), under_hot)))


def _small(picture: Image.Image) -> Image.Image:
    """A copy of a picture that fits a cell of the contact sheet."""
    small = picture.copy()
    small.thumbnail((_SHEET_SIDE_PX, _SHEET_SIDE_PX))
    return small
