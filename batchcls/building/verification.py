"""Verify a new engine: compare its answers to real images with those of the training framework."""

from contextlib import closing
from pathlib import Path

import numpy as np
from rich.console import Console

from batchcls import machine
from batchcls.building.accuracy import folder_accuracy
from batchcls.building.model_sources.base import ModelSource
from batchcls.building.reference import Reference
from batchcls.engine.backends import open_engine
from batchcls.engine.base import Engine
from batchcls.engine.manifest import Manifest, keeps_precision
from batchcls.engine.postprocess import to_predictions
from batchcls.engine.verification import Verification
from batchcls.errors import SlidesError, VerificationError
from batchcls.images.decoders import DEFAULT, open_decoder
from batchcls.images.decoders.base import Decoder, DecoderOptions, shortage_error
from batchcls.images.sources import open_source
from batchcls.progress import RunProgress
from batchcls.storage.file_names import printable

LEAST_AGREEMENT = 0.995
"""Share of images whose label an engine must have in common with its training framework, 0 to 1."""
_BATCH_SIZE = 32
_LARGEST_IMAGE_PIXELS = 200_000_000
_MOST_NAMED_FILES = 10
"""Files that an error names before it only counts the others."""


def open_on_cpu(folder: Path, manifest: Manifest, precision: str | None = None, *, features: bool = False) -> Engine:
    """The engine in ``folder``, as a run on this machine's CPU opens it.

    Args:
        precision: ``f32`` or ``bf16``; None: what a run would compute in.
        features: Whether the engine gives features.
    """
    return open_engine(
        folder,
        manifest,
        backend="openvino",
        device="cpu",
        threads=machine.cores(),
        precision=precision,
        features=features,
    )


def verify_engine(
    folder: Path, manifest: Manifest, source: ModelSource, images: Path, console: Console
) -> Verification:
    """Compare the engine in ``folder`` with its trained network, on the images below ``images``.

    Raises:
        SlidesError: If there is no image that both can read.
        VerificationError: If engine and network agree on fewer images than `LEAST_AGREEMENT` allows.
    """
    decoder = open_decoder(
        DEFAULT,
        source.recipe.preprocess,
        DecoderOptions(_BATCH_SIZE, machine.cores(), _LARGEST_IMAGE_PIXELS),
    )
    with closing(open_on_cpu(folder, manifest)) as engine, closing(decoder):
        shipped = f"{DEFAULT}, {engine.info.backend} {engine.info.precision} on {engine.info.device}"
        names = shipped, source.reference_name
        verification = compare_with_reference(images, decoder, engine, source.reference, console, names=names)
    if verification.top1_agreement < LEAST_AGREEMENT:
        raise _disagreement_error(verification, manifest)
    return verification


def compare_with_reference(
    folder: Path, decoder: Decoder, engine: Engine, reference: Reference, console: Console, *, names: tuple[str, str]
) -> Verification:
    """Classify every image below ``folder`` by the engine and by the reference, and compare their probabilities.

    If the images are in class folders that are called like the engine's labels, its accuracy is measured as well.

    Args:
        names: Descriptions of what computes the engine's answers and the reference's, for engine.json.

    Raises:
        SlidesError: If there is no image that both can read.
        MemoryShortageError: If an image needs more memory than there is.
    """
    listing = open_source([folder])
    differences: list[np.ndarray] = []
    disagreements: list[str] = []
    predicted: dict[str, int] = {}
    done = unreadable = 0
    with RunProgress(console, "verifying") as progress, closing(decoder.decode(listing)) as batches:
        for batch in batches:
            if batch.postponed:
                raise shortage_error(batch.postponed, "free some, or leave them out")
            rows, reference_logits = reference.logits(batch.slides)
            if rows:
                actual = to_predictions(engine.infer(batch.pixels).logits[rows])
                expected = to_predictions(reference_logits)
                differences.append(np.abs(actual.probabilities - expected.probabilities))
                wrong = ~actual.finite | (actual.labels != expected.labels)
                paths = [printable(batch.slides[row].path) for row in rows]
                disagreements += [paths[row] for row in wrong.nonzero()[0]]
                predicted |= zip(paths, np.where(actual.finite, actual.labels, -1).tolist(), strict=True)
            done += batch.files
            unreadable += batch.files - len(rows)
            progress.show(done, unreadable, listing.count if listing.complete else None)
    if not differences:
        raise SlidesError(f"no image that can be read was found in {str(folder)!r} to verify with")
    difference = np.concatenate(differences)
    accuracy = folder_accuracy(list(predicted), list(predicted.values()), engine.info.labels)
    return Verification(
        images=len(difference),
        top1_agreement=1 - len(disagreements) / len(difference),
        largest_difference=float(difference.max()),
        mean_difference=float(difference.mean(dtype=np.float64)),
        disagreements=tuple(sorted(disagreements)),
        unreadable=unreadable,
        folder=printable(folder.resolve().name),
        shipped=names[0],
        reference=names[1],
        accuracy=accuracy,
    )


def _disagreement_error(verification: Verification, manifest: Manifest) -> VerificationError:
    files = verification.disagreements
    more = f" and {len(files) - _MOST_NAMED_FILES:,} more" if len(files) > _MOST_NAMED_FILES else ""
    return VerificationError(
        f"top-1 agreement over {verification.images:,} images is {verification.top1_agreement:.4f}, "
        f"below {LEAST_AGREEMENT}; these differ: {', '.join(files[:_MOST_NAMED_FILES])}{more}; "
        f"compare the recipe with the training{finer_precision_advice(manifest)}"
    )


def finer_precision_advice(manifest: Manifest) -> str:
    """The end of an error on a build whose rounding may be at fault; empty where no finer precision can be built."""
    if keeps_precision(manifest.architecture):
        return ", or build without --precision" if manifest.precision == "int8" else ""
    return "" if manifest.precision == "fp32" else ", or build with --precision fp32"
