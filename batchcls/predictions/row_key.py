"""The key columns, which tell the slide of a row, and the order of rows."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batchcls.records import Slide
from batchcls.storage.column_values import exact_values
from batchcls.storage.file_names import original, printable

KEY_COLUMNS = ("root", "path")
"""The names of the columns that together name one slide, and so one row."""
DIGEST_BYTES = 16
_DIGESTED_ROWS = 4096
"""Rows whose keys are Python strings at one time."""


def key_schema(rows: pa.Schema) -> pa.Schema:
    """The key columns of ``rows``, with the types that they have there."""
    return pa.schema([rows.field(name) for name in KEY_COLUMNS])


def column_values(slides: Sequence[Slide], roots: Mapping[str, int]) -> dict[str, pa.Array]:
    """The key columns of a part's rows, by name.

    Args:
        slides: The slide of each row.
        roots: Position of each `Slide.root` in the list that the whole run shares.
    """
    return {
        "root": pa.array([roots[slide.root] for slide in slides], pa.int32()),
        "path": pa.array([printable(slide.path) for slide in slides], pa.string()),
    }


def slide_digests(slides: Iterable[Slide], roots: Mapping[str, int]) -> npt.NDArray[np.void]:
    """(slides,) a digest of 16 bytes for each slide, which no other slide has."""
    return np.array([_digest(roots[slide.root], printable(slide.path)) for slide in slides], f"V{DIGEST_BYTES}")


def row_digests(batches: Iterable[pa.RecordBatch]) -> npt.NDArray[np.void]:
    """(rows,) the same 16 bytes as `slide_digests`, from the key columns of rows of parts; no batch is kept."""
    digests = bytearray()  # which grows in place, unlike an array
    for batch in batches:
        for start in range(0, len(batch), _DIGESTED_ROWS):
            rows = batch.slice(start, _DIGESTED_ROWS)
            keys = zip(*(rows[name].to_pylist() for name in KEY_COLUMNS), strict=True)
            digests += b"".join(_digest(*key) for key in keys)
    return np.frombuffer(digests, f"V{DIGEST_BYTES}")


def slides_of(rows: pa.Table, roots: Sequence[str] | None = None, kept: Sequence[str] = ()) -> Iterator[Slide]:
    """The slide of each row.

    Args:
        rows: Rows of a part, or of a whole file, with their key columns.
        roots: Roots by their position in a part's rows; None for a whole file, which holds the roots as text.
        kept: Names of the columns of `Slide.kept`.
    """
    for batch in rows.to_batches():
        columns = [exact_values(batch[name]) for name in (*KEY_COLUMNS, *kept)]
        for root, path, *values in zip(*columns, strict=True):
            yield Slide(original(root) if roots is None else roots[root], original(path), kept=tuple(values))


def files_of(rows: pa.Table) -> pa.ChunkedArray:
    """(rows,) the file of each row of a whole predictions file, as text."""
    return pc.binary_join_element_wise(rows["root"].cast(pa.string()), rows["path"], "/")


def _digest(*key: Any) -> bytes:
    return hashlib.blake2b("\0".join(map(str, key)).encode(), digest_size=DIGEST_BYTES).digest()
