"""What predictions files of text share: the record of the run beside the file, and probabilities by label."""

import hashlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchcls.storage.file_or_object import opened_for_reading
from batchcls.storage.output_names import beside_path

_LARGEST_RECORD_BYTES = 64 << 20


class DigestedStream(io.RawIOBase):
    """A stream that counts and digests what is written through it to another stream."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.digest, self.size = hashlib.sha256(), 0

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        self.digest.update(content)
        self.size += len(content)
        return self._stream.write(content)


def record_with_fingerprint(record: Mapping[str, Any], key: str, stream: DigestedStream) -> bytes:
    """The JSON file for the place beside a predictions file: the record of the run, and size and digest of the file.

    Args:
        key: Key under which size and digest stand.
        stream: Stream that the whole file was written to.
    """
    fingerprint = {"bytes": stream.size, "sha256": stream.digest.hexdigest()}
    return json.dumps({**record, key: fingerprint}, indent=1).encode() + b"\n"


def has_fingerprint(record: Mapping[str, Any], key: str, stream: BinaryIO) -> bool:
    """Whether a file is the one that its record was written with.

    Raises:
        LookupError, TypeError: If the record holds no digest.
    """
    stream.seek(0)
    digest = hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
    return bool(record[key]["sha256"] == digest)


def record_of(path: Path | str) -> Mapping[str, Any]:
    """The record of the run beside a predictions file; empty if there is none.

    Args:
        path: The predictions file, or its URL in an object store.

    Raises:
        OSError, ValueError: If it cannot be read.
    """
    try:
        stream = opened_for_reading(beside_path(path), follows_links=True)
    except FileNotFoundError:
        return {}
    with stream:
        record = json.loads(stream.read(_LARGEST_RECORD_BYTES))
    return record if isinstance(record, dict) else {}


def json_lists(lists: pa.Array) -> pa.StringArray:
    """(rows,) lists of texts or numbers as JSON arrays; a null stays null, and what is no number in JSON is null."""
    rows = (None if row is None else [_json_value(value) for value in row] for row in lists.to_pylist())
    return pa.array([None if row is None else json.dumps(row) for row in rows], pa.string())


def lists_of_json(texts: pa.StringArray, kind: pa.DataType) -> pa.Array:
    """(rows,) lists of type ``kind`` that `json_lists` made texts of.

    Raises:
        ValueError: If a text is no JSON array of such a list.
    """
    return pa.array([None if text is None else json.loads(text) for text in texts.to_pylist()], kind)


def _json_value(value: Any) -> Any:
    return value if not isinstance(value, float) or math.isfinite(value) else None


def probability_lists(columns: Sequence[pa.Array]) -> pa.FixedSizeListArray:
    """(rows,) lists of the values of the columns, one column for each label; null where all are missing.

    Raises:
        ValueError: If a row has some values, and not all.
    """
    missing = np.stack([np.asarray(column.is_null()) for column in columns], axis=1)
    if (missing.any(axis=1) != missing.all(axis=1)).any():
        raise ValueError("it has rows in which some probabilities are missing")
    numbers = np.stack([pc.fill_null(column, 0.0).to_numpy() for column in columns], axis=1)
    return pa.FixedSizeListArray.from_arrays(
        pa.array(numbers.ravel(), pa.float32()), len(columns), mask=pa.array(missing[:, 0])
    )
