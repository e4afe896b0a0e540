"""How far the shipped path and the training framework agree."""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console

from batchcls.contracts import Decoder, Engine
from batchcls.discover import Listing
from batchcls.errors import EngineError, SlidesError, VerificationError
from batchcls.file_names import printable
from batchcls.manifest import Manifest, Verification
from batchcls.postprocess import predictions
from batchcls.probes import COUNT, probe_pixels
from batchcls.progress import RunProgress
from batchcls.sidecar import Check
from batchcls.tally import Tally

if TYPE_CHECKING:
    from batchcls.reference import Reference  # PyTorch is not needed to check a plan

_LARGEST_DIFFERENCE = {"fp32": 0.02, "fp16": 0.05, "bf16": 0.15, "int8": 0.4}
"""Of a probability, by the precision that an engine is stored in: on a CPU all4-googlenet differs by 0.0004 in half
precision, 0.009 in bfloat16 and 0.03 in int8."""
_LEAST_AGREEMENT = 0.8
"""Share of the probes: they are no slides, and a network may be undecided about some."""


def check(engine: Engine, manifest: Manifest) -> Check:
    """How an engine answers the probes, against the float32 logits that were recorded in training's framework.

    Raises:
        EngineError: If not every probe has its answer.
        VerificationError: If it answers otherwise than its precision explains.
    """
    if len(manifest.reference) != COUNT:
        raise no_reference(manifest)
    pixels = probe_pixels(engine.info.preprocess.size_px)
    ours, theirs = predictions(engine.infer(pixels)), predictions(np.array(manifest.reference, np.float32))
    agreeing = ours.finite & (ours.labels == theirs.labels)
    largest = float(np.abs(ours.probabilities - theirs.probabilities).max()) if ours.finite.all() else 1.0
    found = Check(len(pixels), float(agreeing.mean()), largest)
    allowed = _LARGEST_DIFFERENCE.get(manifest.precision, 0.0)
    if largest > allowed or found.top1_agreement < _LEAST_AGREEMENT:
        raise VerificationError(
            f"engine {manifest.name!r} answers the probes on {engine.info.device} otherwise than the trained network: "
            f"probabilities differ by up to {largest:.4f}, {manifest.precision} explains {allowed}; "
            f"top-1 agreement is {found.top1_agreement:.4f}; "
            "run: batchcls build CHECKPOINT --out ENGINE --precision fp32"
        )
    return found


def no_reference(manifest: Manifest) -> EngineError:
    """What to say of an engine that cannot be checked."""
    return EngineError(
        f"engine {manifest.name!r} has recorded answers to {len(manifest.reference)} probes of {COUNT}, so what a GPU "
        "answers cannot be checked; run: batchcls build CHECKPOINT --out ENGINE"
    )


def verify(
    folder: Path, decoder: Decoder, engine: Engine, reference: "Reference", console: Console, *, names: tuple[str, str]
) -> Verification:
    """Run both paths over every image below ``folder`` and compare their probabilities.

    Args:
        names: What the shipped path and the reference are made of, for the record.

    Raises:
        SlidesError: If there is no image that both can read.
    """
    listing = Listing([folder])
    differences: list[np.ndarray] = []
    disagreements: list[str] = []
    tally = Tally(engine.info)
    with RunProgress(console, "verifying") as progress, closing(decoder.decode(listing)) as batches:
        for batch in batches:
            rows, expected = reference.logits([slide.file for slide in batch.slides])
            if rows:
                ours, theirs = predictions(engine.infer(batch.pixels)[rows]), predictions(expected)
                differences.append(np.abs(ours.probabilities - theirs.probabilities))
                wrong = ~ours.finite | (ours.labels != theirs.labels)
                disagreements += [batch.slides[rows[row]].path for row in wrong.nonzero()[0]]
            tally.rows += batch.files
            tally.errors["unreadable"] += batch.files - len(rows)
            progress.show(tally, listing.found if listing.complete else None)
    if not differences:
        raise SlidesError(f"no image that can be read was found in {str(folder)!r} to verify with")
    difference = np.concatenate(differences)
    return Verification(
        images=len(difference),
        top1_agreement=1 - len(disagreements) / len(difference),
        largest_difference=float(difference.max()),
        mean_difference=float(difference.mean(dtype=np.float64)),
        disagreements=tuple(sorted(map(printable, disagreements))),
        unreadable=tally.unreadable,
        folder=printable(folder.resolve().name),
        shipped=names[0],
        reference=names[1],
    )
