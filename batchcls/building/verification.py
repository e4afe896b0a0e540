"""How far the shipped path and the training framework agree."""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console

from batchcls.engine.base import Engine
from batchcls.engine.manifest import Verification
from batchcls.engine.postprocess import predictions
from batchcls.errors import SlidesError
from batchcls.images.decoders.base import Decoder, postponed_error
from batchcls.images.sources.folder import FolderSource
from batchcls.progress import RunProgress
from batchcls.storage.file_names import printable

if TYPE_CHECKING:
    from batchcls.building.reference import Reference  # PyTorch is not needed to check a plan


def verify(
    folder: Path, decoder: Decoder, engine: Engine, reference: "Reference", console: Console, *, names: tuple[str, str]
) -> Verification:
    """Run both paths over every image below ``folder`` and compare their probabilities.

    Args:
        names: What the shipped path and the reference are made of, for the record.

    Raises:
        SlidesError: If there is no image that both can read.
    """
    listing = FolderSource([folder])
    differences: list[np.ndarray] = []
    disagreements: list[str] = []
    done = unreadable = 0
    with RunProgress(console, "verifying") as progress, closing(decoder.decode(listing)) as batches:
        for batch in batches:
            if batch.postponed:
                raise postponed_error(batch.postponed, "free some, or leave them out")
            rows, expected = reference.logits([slide.file for slide in batch.slides])
            if rows:
                ours, theirs = predictions(engine.infer(batch.pixels)[rows]), predictions(expected)
                differences.append(np.abs(ours.probabilities - theirs.probabilities))
                wrong = ~ours.finite | (ours.labels != theirs.labels)
                disagreements += [batch.slides[rows[row]].path for row in wrong.nonzero()[0]]
            done += batch.files
            unreadable += batch.files - len(rows)
            progress.show(done, unreadable, listing.found if listing.complete else None)
    if not differences:
        raise SlidesError(f"no image that can be read was found in {str(folder)!r} to verify with")
    difference = np.concatenate(differences)
    return Verification(
        images=len(difference),
        top1_agreement=1 - len(disagreements) / len(difference),
        largest_difference=float(difference.max()),
        mean_difference=float(difference.mean(dtype=np.float64)),
        disagreements=tuple(sorted(map(printable, disagreements))),
        unreadable=unreadable,
        folder=printable(folder.resolve().name),
        shipped=names[0],
        reference=names[1],
    )
