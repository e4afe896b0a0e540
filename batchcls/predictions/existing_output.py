"""A predictions file that is whole already: which run it belongs to, and which of its rows are worth doing again."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc

from batchcls.errors import OutputError
from batchcls.predictions.formats import format_to_read, parquet_folder
from batchcls.predictions.formats.base import OpenPredictions
from batchcls.predictions.formats.parquet_folder import rows_of_each_file
from batchcls.storage.differences import differences
from batchcls.storage.file_or_object import check_replaceable, exists, opened_for_reading
from batchcls.storage.file_set import check_replaceable_folder
from batchcls.storage.output_names import beside_path
from batchcls.storage.transient_errors import is_transient

_BATCH_ROWS = 65_536
_LARGEST_RECORD_BYTES = 64 << 20
_UNREADABLE = (pa.ArrowException, OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True, slots=True)
class ExistingOutput:
    """The whole predictions file, or folder, that a run of the same identity wrote."""

    path: Path | str
    metadata: Mapping[str, Any]
    """The record of the run."""

    @classmethod
    def of(cls, path: Path | str, columns: pa.Schema, identity: Mapping[str, Any]) -> Self | None:
        """The file at ``path``; None if there is none.

        Args:
            columns: The schema that the file must have.
            identity: Properties that the run and the file must share, as read back from JSON.

        Raises:
            OutputError: If the file is of another identity, or does not record one.
        """
        if rows_of_each_file(identity) is None:
            check_replaceable(path)
        else:
            check_replaceable_folder(Path(path))
        if not exists(path) or (os.path.isdir(path) and not os.listdir(path)):
            return None
        try:
            with _opened(path) as file:
                metadata = file.record
                _check_counts(metadata)
                recorded = dict(metadata["identity"]) if file.is_as_written() else {}
                has_columns = file.schema.equals(columns)
        except _UNREADABLE:
            recorded, has_columns = {}, False
        if recorded == identity and has_columns:
            return cls(path, metadata)
        differs = ""
        if recorded and recorded != identity:
            differs = f", made with {differences(recorded, identity)}; this run has {differences(identity, recorded)}"
        raise OutputError(f"{str(path)!r} exists{differs}; choose another --out, or replace it with --overwrite")

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

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The ``columns`` of the file's rows, a batch at a time.

        Raises:
            OutputError: If the file cannot be read.
        """
        try:
            with _opened(self.path) as file:
                yield from file.batches(_BATCH_ROWS, columns)
        except (pa.ArrowException, OSError, ValueError) as error:
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


def check_record_beside(path: Path | str) -> None:
    """Refuse to replace a JSON file beside ``path`` that no run wrote; no file there is fine.

    Raises:
        OutputError: If there is another file, a folder, a link or a pipe.
    """
    beside = beside_path(path)
    check_replaceable(beside)
    if not exists(beside):
        return
    try:
        with opened_for_reading(beside) as stream:
            is_record = "identity" in json.loads(stream.read(_LARGEST_RECORD_BYTES))
    except _UNREADABLE:
        is_record = False
    if not is_record:
        raise OutputError(
            f"{str(beside)!r}, where the record of the run is written, exists and is none; choose another --out, or "
            "replace it with --overwrite"
        )


def _check_counts(metadata: Mapping[str, Any]) -> None:
    """Refuse the record of a run whose counts are incomplete.

    Raises:
        LookupError, TypeError, ValueError: If counts are missing, or of other types.
    """
    counts = metadata["counts"]
    by_name = (counts["labels"], counts["errors"], counts["skipped"], counts.get("sets", {}))
    if not all(isinstance(each, dict) for each in by_name):
        raise TypeError("counts are by name")
    if not isinstance(metadata.get("limits", {}), dict):
        raise TypeError("limits are by name")
    int(counts["rows"])
    novelty, drift = metadata.get("novelty", {}), metadata.get("drift", {})
    if not (isinstance(novelty, dict) and isinstance(drift, dict)):
        raise TypeError("novelty and drift are by name")
    numbers = [novelty[name] for name in ("images", "above", "calibration_images")] if novelty else []
    if not all(isinstance(number, int | float) for number in (*numbers, novelty.get("novel") or 0)):
        raise TypeError("novelty is no number")
    texts = [drift["note"] or "", *(effect["sentence"] for effect in drift["effects"])] if drift else []
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("drift is no text")


@contextmanager
def _opened(path: Path | str) -> Iterator[OpenPredictions]:
    form = format_to_read(path)
    with (
        nullcontext() if form is parquet_folder else opened_for_reading(path) as stream,
        form.opened(path, stream) as file,
    ):
        yield file
