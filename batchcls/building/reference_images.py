"""Let a new engine answer the images of a reference folder, by which it will tell how strange others look."""

import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from rich.console import Console

from batchcls import machine
from batchcls.building.verification import open_on_cpu
from batchcls.engine.manifest import Manifest
from batchcls.engine.novelty_fit import ReferenceImages
from batchcls.engine.postprocess import to_predictions
from batchcls.errors import SlidesError
from batchcls.images.decoders import DEFAULT, open_decoder
from batchcls.images.decoders.base import DecoderOptions, shortage_error
from batchcls.images.sources import open_source
from batchcls.progress import RunProgress
from batchcls.records import Outputs, Slide
from batchcls.storage.file_names import printable
from batchcls.storage.natural_order import natural_key

_MOST_IMAGES = 5_120
"""Images of a folder that are answered, at most."""
_RUN = 64
"""Consecutive images that are taken together from a folder that has more: how far they differ from other such runs
tells how far a day's slides may differ from another day's."""
_BATCH_SIZE = 64
_LARGEST_IMAGE_PIXELS = 200_000_000


def reference_images(folder: Path, manifest: Manifest, images: Path, console: Console) -> ReferenceImages:
    """The answers of the engine in ``folder`` to the images below ``images``, in their natural order.

    Raises:
        SlidesError: If no image can be read.
        MemoryShortageError: If an image needs more memory than there is.
    """
    with closing(open_source([images])) as listing:
        slides = _chosen(sorted(listing, key=lambda slide: (os.path.dirname(slide.path), natural_key(slide.path))))
    options = DecoderOptions(_BATCH_SIZE, machine.cores(), _LARGEST_IMAGE_PIXELS)
    answers: dict[str, tuple[np.ndarray, int]] = {}
    done = 0
    with (
        closing(open_on_cpu(folder, manifest, features=True)) as engine,
        closing(open_decoder(DEFAULT, manifest.preprocess, options)) as decoder,
        RunProgress(console, "learning what images look like") as progress,
        closing(decoder.decode(iter(slides))) as batches,
    ):
        for batch in batches:
            if batch.postponed:
                raise shortage_error(batch.postponed, "free some, or leave them out")
            answers |= _answers(batch.slides, engine.infer(batch.pixels))
            done += batch.files
            progress.show(done, done - len(answers), len(slides))
    if not answers:
        raise SlidesError(f"no image that can be read was found in {str(images)!r} to learn novelty from")
    names = [name for slide in slides if (name := printable(slide.path)) in answers]
    return ReferenceImages(
        names=names,
        features=np.stack([answers[name][0] for name in names]),
        predicted=np.array([answers[name][1] for name in names]),
    )


def _answers(slides: Sequence[Slide], outputs: Outputs) -> dict[str, tuple[np.ndarray, int]]:
    """Features and predicted class of each image with finite logits, by its name."""
    predictions = to_predictions(outputs.logits)
    return {
        printable(slides[row].path): (outputs.features[row], int(predictions.labels[row]))
        for row in predictions.finite.nonzero()[0].tolist()
    }


def _chosen(slides: Sequence[Slide]) -> Sequence[Slide]:
    """All slides, or evenly spaced runs of consecutive ones."""
    runs = [slides[start : start + _RUN] for start in range(0, len(slides), _RUN)]
    most = _MOST_IMAGES // _RUN
    if len(runs) <= most:
        return slides
    return [slide for number in range(most) for slide in runs[number * len(runs) // most]]
