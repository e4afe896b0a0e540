"""A predictions file that stands whole in its place: whose it is, and which of its rows are worth doing again."""

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
from batchcls.records import METADATA_KEY, is_transient
from batchcls.storage.atomic import check_replaceable_file, kind_of, regular_file
from batchcls.storage.resumable import differing

_UNREADABLE = (pa.ArrowException, OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True, slots=True)
class ExistingOutput:
    """What a run of this identity has written whole."""

    path: Path
    metadata: Mapping[str, Any]

    @classmethod
    def of(cls, path: Path, columns: pa.Schema, identity: Mapping[str, Any]) -> Self | None:
        """The file at ``path``; None if there is none.

        Args:
            columns: That it must have.
            identity: As it stands in JSON.

        Raises:
            OutputError: If it is of another identity, or says nothing of it.
        """
        check_replaceable_file(path)
        if kind_of(path) is None:
            return None
        try:
            with _parquet(path) as file:
                metadata = json.loads((file.schema_arrow.metadata or {}).get(METADATA_KEY, b"{}"))
                rows = file.metadata.num_rows
                complete = file.schema_arrow.equals(columns) and _counted_rows(metadata) == rows
                theirs = dict(metadata["identity"]) if complete else {}
        except _UNREADABLE:
            theirs = {}
        if theirs == identity:
            return cls(path, metadata)
        other = f", made with {differing(theirs, identity)}; this run has {differing(identity, theirs)}"
        raise OutputError(
            f"{str(path)!r} exists{other if theirs else ''}; choose another --out, or replace it with --overwrite"
        )

    def is_settled(self, limits: Mapping[str, Any]) -> bool:
        """Whether another run with these limits would have nothing to do."""
        errors, other_limits = self.metadata["counts"]["errors"], self.other_limits(limits)
        if self.metadata.get("unlisted_folders") or ("too large" in errors and "max_pixels" in other_limits):
            return False
        if "unreadable" not in errors:
            return True
        return not any(pc.any(worth_again(batch["error"], other_limits)).as_py() for batch in self.batches(["error"]))

    def other_limits(self, limits: Mapping[str, Any]) -> frozenset[str]:
        """Which of ``limits`` were others when it was made."""
        theirs = self.metadata.get("limits", {})
        return frozenset(key for key, value in limits.items() if theirs.get(key) != value)

    def batches(self, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Its rows, some at a time.

        Raises:
            OutputError: If they cannot be read.
        """
        try:
            with _parquet(self.path) as file:
                for group in range(file.num_row_groups):
                    yield from file.iter_batches(row_groups=[group], columns=columns)
        except (pa.ArrowException, OSError) as error:
            raise OutputError(
                f"{str(self.path)!r} cannot be read: {error}; choose another --out, or replace it with --overwrite"
            ) from error


def worth_again(errors: pa.Array, changed_limits: Set[str]) -> pa.BooleanArray:
    """(rows,) whether a row is worth doing again, by its error; where there is none it is not.

    Args:
        changed_limits: What is otherwise now.
    """
    values = [text for text in pc.unique(errors).to_pylist() if text is not None]
    again = [text for text in values if is_transient(text)]
    if "max_pixels" in changed_limits:
        again += [text for text in values if text.startswith("too large:")]
    return pc.fill_null(pc.is_in(errors, pa.array(again, pa.string())), False)


def _counted_rows(metadata: Mapping[str, Any]) -> int:
    """How many rows the run wrote, where it counted all that it should have."""
    counts = metadata["counts"]
    if not all(isinstance(counts[key], dict) for key in ("labels", "errors", "skipped")):
        raise TypeError("counts are by name")
    if not isinstance(metadata.get("limits", {}), dict):
        raise TypeError("limits are by name")
    return int(counts["rows"])


@contextmanager
def _parquet(path: Path) -> Iterator[pq.ParquetFile]:
    with os.fdopen(regular_file(path), "rb") as stream, pq.ParquetFile(stream) as file:
        yield file
