"""The rows of a whole file by their slides, with what they say of their files, in some 40 bytes of memory a row."""

from collections.abc import Iterable, Sequence, Set
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batchcls.predictions.existing_output import retry_mask
from batchcls.predictions.row_key import DIGEST_BYTES, row_digests
from batchcls.predictions.schema import DIGEST
from batchcls.storage.column_values import exact_values

STATE_COLUMNS = ("size_bytes", "modified", "error")
"""Columns of a row that say what its file was when it was read."""
UNKNOWN = -(1 << 63)
"""Placeholder for a size or a time that a row does not hold."""
NO_DIGEST = bytes(DIGEST_BYTES)
"""Placeholder for a digest that a row does not hold."""
_BYTES_TYPE = f"V{DIGEST_BYTES}"
NO_DIGESTS = np.empty(0, _BYTES_TYPE)
_HEX = f"^[0-9a-f]{{{2 * DIGEST_BYTES}}}$"
_SORTABLE_TYPE = f"S{DIGEST_BYTES}"


class RowIndex:
    """Positions of rows by the digests of their slides, and which of the slides have been seen.

    Args:
        digests: (rows,) the digest of each row's slide, as of `batchcls.predictions.row_key`.
    """

    def __init__(self, digests: npt.NDArray[np.void]) -> None:
        order = np.argsort(digests.view(_SORTABLE_TYPE), kind="stable")
        self._digests = digests[order]
        self._rows = order.astype(np.uint32 if len(order) < 1 << 32 else np.int64)
        self.seen = np.zeros(len(order), np.bool_)
        """(rows,) whether `see` was called with the row's slide."""

    def __len__(self) -> int:
        return len(self._rows)

    def rows(self, digests: npt.NDArray[np.void]) -> npt.NDArray[np.int64]:
        """(slides,) the row of each slide; -1 for a slide without one."""
        if not len(self):
            return np.full(len(digests), -1, np.int64)
        places = np.searchsorted(self._digests.view(_SORTABLE_TYPE), digests.view(_SORTABLE_TYPE))
        places = places.clip(max=len(self) - 1)
        return np.where(self._digests[places] == digests, self._rows[places].astype(np.int64), -1)

    def see(self, digests: npt.NDArray[np.void]) -> npt.NDArray[np.int64]:
        """The same as `rows`, whose slides count as seen from now on."""
        rows = self.rows(digests)
        self.seen[rows[rows >= 0]] = True
        return rows


class KnownRows:
    """The rows of a whole file, by their slides, and what they say of their files.

    Args:
        batches: All rows as rows of a part, with the key columns and `STATE_COLUMNS`.
        changed_limits: Names of the limits that have another value now.
        kept: Names of the columns of `Slide.kept`.
    """

    def __init__(self, batches: Iterable[pa.RecordBatch], changed_limits: Set[str], kept: Sequence[str] = ()) -> None:
        self._kept_names = kept
        columns: list[tuple[npt.NDArray[Any], ...]] = []
        for batch in batches:
            columns.append(
                (
                    row_digests([batch]),
                    *file_states(batch),
                    np.asarray(batch["error"].is_valid()),
                    np.asarray(retry_mask(batch["error"], changed_limits)),
                    _contents(batch),
                    self._kept_hashes(batch),
                )
            )
        types: list[npt.DTypeLike] = [_BYTES_TYPE, np.int64, np.int64, np.bool_, np.bool_, _BYTES_TYPE, np.int64]
        parts = list(zip(*columns, strict=True)) or [()] * len(types)
        arrays = [np.concatenate([np.array([], kind), *part]) for part, kind in zip(parts, types, strict=True)]
        digests, self.sizes, self.times, self.failed, self.repeated, self.contents, self._kept = arrays
        self.index = RowIndex(digests)

    def __len__(self) -> int:
        return len(self.sizes)

    def keeps(self, row: int, values: Sequence[Any]) -> bool:
        """Whether a row holds these values of `Slide.kept`."""
        return not self._kept_names or int(self._kept[row]) == self._kept_hash(values)

    def are_unchanged(self, rows: pa.RecordBatch) -> npt.NDArray[np.bool_]:
        """(rows,) whether each row of ``rows`` is one of these: of the same slide, size, time and digest."""
        places = self.index.rows(row_digests([rows]))
        sizes, times = file_states(rows)
        if not len(self):
            return places >= 0
        is_same = (self.sizes[places] == sizes) & (self.times[places] == times)
        if DIGEST in rows.schema.names:
            is_same &= self.contents[places] == _contents(rows)
        if self._kept_names:
            is_same &= self._kept[places] == self._kept_hashes(rows)
        return np.asarray((places >= 0) & is_same)

    def _kept_hashes(self, rows: pa.RecordBatch) -> npt.NDArray[np.int64]:
        """(rows,) hashes of the values of `Slide.kept`; of no length where there are no such columns."""
        columns = [exact_values(rows[name]) for name in self._kept_names]
        return np.array([self._kept_hash(values) for values in zip(*columns, strict=True)], np.int64)

    def _kept_hash(self, values: Sequence[Any]) -> int:
        """A hash, which other processes do not share; of slides without values it is that of nulls."""
        return hash(repr(tuple(values) or (None,) * len(self._kept_names)))  # NaN has no hash of its own


def file_states(rows: pa.RecordBatch) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(rows,) sizes in bytes, and (rows,) times of change in microseconds since 1970; `UNKNOWN` for null."""
    return _numbers(rows["size_bytes"]), _numbers(rows["modified"].cast(pa.int64()))


def _contents(rows: pa.RecordBatch) -> npt.NDArray[np.void]:
    """(rows,) the digests of the files' bytes; `NO_DIGEST` for null; of no length where rows hold none."""
    if DIGEST not in rows.schema.names:
        return NO_DIGESTS
    is_digest = pc.match_substring_regex(rows[DIGEST], _HEX)
    texts = pc.if_else(pc.fill_null(is_digest, False), rows[DIGEST], NO_DIGEST.hex()).to_pylist()
    return np.frombuffer(bytes.fromhex("".join(texts)), f"V{DIGEST_BYTES}")


def _numbers(column: Any) -> npt.NDArray[np.int64]:
    return np.asarray(pc.fill_null(column, UNKNOWN).to_numpy(), np.int64)
