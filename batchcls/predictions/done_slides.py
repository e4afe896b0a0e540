"""Which slides have a row, and in which order rows stand: what takes memory by the million of files."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchcls.records import Slide
from batchcls.storage.file_names import printable

_LOOKUP_SLIDES = 1024


class DoneSlides:
    """Slides that have a row, each kept as 16 bytes.

    Args:
        rows: With the columns root, as a position in ``roots``, and path.
        roots: Position of each `Slide.root`.
    """

    def __init__(self, rows: pa.Table, roots: Mapping[str, int]) -> None:
        self._roots = roots
        columns = ((batch["root"].to_pylist(), batch["path"].to_pylist()) for batch in rows.to_batches())
        keys = (_digest(*row) for root_and_path in columns for row in zip(*root_and_path, strict=True))
        self._keys = np.sort(np.fromiter(keys, "S16", count=len(rows))).view("V16")

    def __len__(self) -> int:
        return len(self._keys)

    def missing(self, slides: Iterable[Slide]) -> Iterator[Slide]:
        """Those of ``slides`` that have no row."""
        slides = iter(slides)
        if not len(self._keys):
            yield from slides
        while chunk := list(islice(slides, _LOOKUP_SLIDES)):
            wanted = np.array([_digest(self._roots[slide.root], printable(slide.path)) for slide in chunk], "V16")
            places = np.searchsorted(self._keys.view("S16"), wanted.view("S16")).clip(max=len(self._keys) - 1)
            known = self._keys[places] == wanted
            yield from (slide for slide, is_known in zip(chunk, known, strict=True) if not is_known)


def in_order(table: pa.Table, rows: int) -> Iterator[pa.Table]:
    """All rows by root and then by path, so many at a time."""
    order = pc.sort_indices(table, [("root", "ascending"), ("path", "ascending")])
    for start in range(0, len(table), rows):
        yield table.take(order[start : start + rows])


def _digest(root: int, path: str) -> bytes:
    """16 bytes that no other root and path have."""
    return hashlib.blake2b(f"{root}\0{path}".encode(), digest_size=16).digest()
