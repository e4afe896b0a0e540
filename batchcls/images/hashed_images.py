"""Perceptual hashes and digests of image files, read and decoded as in a run."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
from rich.console import Console

from batchcls import machine
from batchcls.images.decoders import DEFAULT, open_decoder
from batchcls.images.decoders.base import DecoderOptions
from batchcls.images.image_file import LARGEST_PIXELS
from batchcls.images.perceptual_hash import HASH_LENGTH, PREPROCESS, Hashes, hashes
from batchcls.progress import RunProgress
from batchcls.records import Batch, Failure, Pixels, Slide

_BATCH_SIZE = 256
_DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class HashedImages:
    """Hashes and digests of image files, in the order of their slides."""

    hashes: Hashes
    """Zeros for files that cannot be read."""
    digests: npt.NDArray[np.void]
    """(N,) 16 bytes, the same for files with the same bytes; zeros for files that cannot be read."""
    pixels: npt.NDArray[np.int64]
    """(N,) width times height; 0 for files that cannot be read."""
    failures: Mapping[int, str]
    """The reason, by the position of the file that cannot be read."""

    @property
    def readable(self) -> npt.NDArray[np.bool_]:
        """(N,) whether the file could be decoded."""
        return self.pixels > 0


def hash_images(slides: Sequence[Slide], console: Console) -> HashedImages:
    """Read and decode every slide once, with as many threads as there are cores.

    A file that cannot be decoded does not affect the others; one that needs more memory than there is, is named as
    unreadable.

    Args:
        slides: Slides, each named once.
    """
    positions = {slide: position for position, slide in enumerate(slides)}
    rows = np.zeros((len(slides), HASH_LENGTH), np.float32)
    digests = np.zeros(len(slides), f"V{_DIGEST_BYTES}")
    pixels = np.zeros(len(slides), np.int64)
    failures: dict[int, str] = {}
    done = 0
    options = DecoderOptions(_BATCH_SIZE, machine.cores(), LARGEST_PIXELS, digests=True)
    decoder = open_decoder(DEFAULT, PREPROCESS, options)
    with (
        RunProgress(console, "looking at the images") as progress,
        closing(decoder),
        closing(decoder.decode(slides)) as batches,
    ):
        for batch in batches:
            places = [positions[slide] for slide in batch.slides]
            rows[places] = hashes(cast(Pixels, batch.pixels))
            pixels[places] = [width * height for width, height in batch.sizes]
            for place, slide in zip(places, batch.slides, strict=True):
                digests[place] = np.void(bytes.fromhex(slide.digest or ""))
            failures.update((positions[slide], reason) for slide, reason in _unread(batch))
            done += batch.files + len(batch.postponed)
            progress.show(done, len(failures), len(slides), decoder.waiting())
    return HashedImages(rows, digests, pixels, failures)


def _unread(batch: Batch) -> Iterator[tuple[Slide, str]]:
    failures: Sequence[Failure] = batch.failures
    yield from ((failure.slide, failure.text) for failure in failures)
    yield from ((file.slide, "unreadable: it needs more memory than there is") for file in batch.postponed)
