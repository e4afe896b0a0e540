"""Find the slides that have no row yet, with 16 bytes of memory for each slide that has one."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

import numpy as np
import pyarrow as pa

from batchcls.predictions.row_key import DIGEST_BYTES, row_digests, slide_digests
from batchcls.records import Slide

_LOOKUP_SLIDES = 1024
_SORTABLE_TYPE = f"S{DIGEST_BYTES}"
"""Byte strings, which NumPy sorts and searches. It compares them without trailing zeros, so equality is tested on raw
bytes."""


class DoneSlides:
    """The slides that have a row, each kept as 16 bytes.

    Args:
        rows: Rows of parts, with their key columns, a batch at a time.
        roots: Position of each `Slide.root`.
    """

    def __init__(self, rows: Iterable[pa.RecordBatch], roots: Mapping[str, int]) -> None:
        self._roots = roots
        self._digests = row_digests(rows)
        self._digests.view(_SORTABLE_TYPE).sort()

    def __len__(self) -> int:
        return len(self._digests)

    def missing(self, slides: Iterable[Slide]) -> Iterator[Slide]:
        """The slides among ``slides`` that have no row."""
        slides = iter(slides)
        if not len(self._digests):
            yield from slides
        while chunk := list(islice(slides, _LOOKUP_SLIDES)):
            digests = slide_digests(chunk, self._roots)
            places = np.searchsorted(self._digests.view(_SORTABLE_TYPE), digests.view(_SORTABLE_TYPE))
            is_done = self._digests[places.clip(max=len(self._digests) - 1)] == digests
            yield from (slide for slide, done in zip(chunk, is_done, strict=True) if not done)
