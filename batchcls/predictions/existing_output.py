"""A predictions file that is whole already: which run it belongs to, and which of its rows are worth doing again."""

import json
import os
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchcls.errors import OutputError
from batchcls.records import METADATA_KEY
from batchcls.storage.atomic import check_replaceable_file, kind_of, open_regular_file
from batchcls.storage.resumable_output import differences
from batchcls.storage.transient_errors import is_transient

_UNREADABLE = (pa.ArrowException, OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True, slots=True)
class ExistingOutput:
    """The whole predictions file that a run of the same identity wrote."""

    path: Path
    metadata: Mapping[str, Any]
    """The JSON document under the file's key ``batchcls``."""

    @classmethod
    def of(cls, path: Path, columns: pa.Schema, identity: Mapping[str, Any]) -> Self | None:
        """The file at ``path``; None if there is none.

        Args:
            columns: The schema that the file must have.
            identity: Properties that the run and the file must share, as read back from JSON.

        Raises:
            OutputError: If the file is of another identity, or does not record one.
        """
        check_replaceable_file(path)
        if kind_of(path) is None:
            return None
        try:
            with _opened_parquet(path) as file:
                metadata = json.loads((file.schema_arrow.metadata or {}).get(METADATA_KEY, b"{}"))
                rows = file.metadata.num_rows
                complete = file.schema_arrow.equals(columns) and _recorded_row_count(metadata) == rows
                recorded = dict(metadata["identity"]) if complete else {}
        except _UNREADABLE:
            recorded = {}
        if recorded == identity:
            return cls(path, metadata)
        differs = f", made with {differences(recorded, identity)}; this run has {differences(identity, recorded)}"
        raise OutputError(
            f"{str(path)!r} exists{differs if recorded else ''}; choose another --out, or replace it with --overwrite"
        )

    def is_settled(self, limits: Mapping[str, Any]) -> bool:
        """Whether another run with these limits would have nothing to do."""
        errors, other_limits = self.metadata["counts"]["errors"], self.other_limits(limits)
        if self.metadata.get("unlisted_folders") or ("too large" in errors and "max_pixels" in other_limits):
            return False
        if "unreadable" not in errors:
            return True
        return not any(pc.any(retry_mask(batch["error"], other_limits)).as_py() for batch in self.batches(["error"]))

    def other_limits(self, limits: Mapping[str, Any]) -> frozenset[str]:
        """The names of those ``limits`` that had another value when the file was written."""
        recorded = self.metadata.get("limits", {})
        return frozenset(key for key, value in limits.items() if recorded.get(key) != value)

    def batches(self, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """The file's rows, a batch at a time; ``columns`` are their names, None for all.

        Raises:
            OutputError: If the file cannot be read.
        """
        try:
            with _opened_parquet(self.path) as file:
                for group in range(file.num_row_groups):
                    yield from file.iter_batches(row_groups=[group], columns=columns)
        except (pa.ArrowException, OSError) as error:
            raise OutputError(
                f"{str(self.path)!r} cannot be read: {error}; choose another --out, or replace it with --overwrite"
            ) from error


def retry_mask(errors: pa.Array, changed_limits: Set[str]) -> pa.BooleanArray:
    """(rows,) whether each row is worth doing again, by its error; False for rows without an error.

    Args:
        changed_limits: The names of limits that have another value now.
    """
    texts = [text for text in pc.unique(errors).to_pylist() if text is not None]
    repeated = [text for text in texts if is_transient(text)]
    if "max_pixels" in changed_limits:
        repeated += [text for text in texts if text.startswith("too large:")]
    return pc.fill_null(pc.is_in(errors, pa.array(repeated, pa.string())), False)


def _recorded_row_count(metadata: Mapping[str, Any]) -> int:
    """The number of rows that the run recorded.

    Raises:
        LookupError, TypeError, ValueError: If the counts are incomplete, or of other types.
    """
    counts = metadata["counts"]
    if not all(isinstance(counts[key], dict) for key in ("labels", "errors", "skipped")):
        raise TypeError("counts are by name")
    if not isinstance(metadata.get("limits", {}), dict):
        raise TypeError("limits are by name")
    return int(counts["rows"])


@contextmanager
def _opened_parquet(path: Path) -> Iterator[pq.ParquetFile]:
    with os.fdopen(open_regular_file(path), "rb") as stream, pq.ParquetFile(stream) as file:
        yield file
