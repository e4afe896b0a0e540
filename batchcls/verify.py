"""How far the shipped path and the training framework agree."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console

from batchcls.contracts import Decoder, Engine
from batchcls.discover import Listing
from batchcls.errors import EngineError, SlidesError
from batchcls.manifest import Verification
from batchcls.postprocess import predictions
from batchcls.probes import COUNT, probe_pixels
from batchcls.progress import RunProgress
from batchcls.records import Tally, printable
from batchcls.sidecar import Check

if TYPE_CHECKING:
    from batchcls.reference import Reference  # PyTorch is not needed to check a plan


def check(engine: Engine, reference: Sequence[Sequence[float]]) -> Check:
    """How an engine answers the probes, against the float32 logits that were recorded in training's framework.

    Raises:
        EngineError: If not every probe has its answer.
    """
    if len(reference) != COUNT:
        raise EngineError(
            f"engine {engine.info.name!r} has recorded answers to {len(reference)} probes, there are {COUNT}; "
            "run: batchcls build CHECKPOINT --out ENGINE"
        )
    pixels = probe_pixels(engine.info.preprocess.size_px)
    ours, theirs = predictions(engine.infer(pixels)), predictions(np.array(reference, np.float32))
    agreeing = ours.finite & (ours.labels == theirs.labels)
    largest = float(np.abs(ours.probabilities - theirs.probabilities).max()) if ours.finite.all() else 1.0
    return Check(len(pixels), float(agreeing.mean()), largest)


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
