"""A predictions file, read back: what an engine said of each image, and what the file says of its own making."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchcls.errors import LabelsError
from batchcls.records import METADATA_KEY

_WORDS = pa.dictionary(pa.int32(), pa.string())
_COLUMNS = {
    "root": _WORDS,
    "path": pa.string(),
    "label": _WORDS,
    "probability": pa.float32(),
    "probabilities": None,
    "width": pa.int32(),
    "height": pa.int32(),
    "error": pa.string(),
}
"""Each with its type, but for the list of probabilities: how long that is, the metadata says."""
_PART_VALUES = 2**21
_PART_ROWS = 32_768
"""A part has at most so many rows, and so many probabilities."""
_UNREADABLE = (pa.ArrowException, OSError, ValueError, RecursionError)

NOT_RECORDED = "not recorded"
_PROVENANCE = {
    "Engine": ("engine", "name"),
    "ONNX file, SHA-256": ("engine", "onnx_sha256"),
    "Trained file, SHA-256": ("engine", "checkpoint_sha256"),
    "Precision": ("precision",),
    "Backend": ("backend",),
    "Device": ("device",),
    "Decoder": ("decoder",),
    "Preprocessing": ("preprocess",),
    "Versions": ("versions",),
    "Arguments": ("arguments",),
    "Started": ("started",),
    "Ended": ("ended",),
    "Resumed rows": ("counts", "resumed_rows"),
    "Passed by": ("counts", "skipped"),
    "Folders not listed": ("unlisted_folders",),
}
"""Where a run's metadata says what."""


@dataclass(frozen=True, slots=True)
class Predicted:
    """The rows of one `batchcls run`, or some of them."""

    path: Path
    table: pa.Table
    """The columns of `batchcls.output.schema`; root and label as dictionaries."""
    labels: tuple[str, ...]
    """The engine's, in the order of its probabilities."""
    metadata: dict[str, Any]
    """As the run wrote it."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what `batchcls run` wrote.

        Raises:
            LabelsError: If the file cannot be read, or nothing but its name is that of a predictions file.
        """
        try:
            table = pq.read_table(path)
            return cls._checked(path, table, table.schema.metadata)
        except _UNREADABLE as error:
            raise _refused(path, str(error)) from error

    @classmethod
    def parts(cls, path: Path) -> Iterator[Self]:
        """The same, some rows at a time, in memory that does not grow with the file; the first part has no rows.

        Raises:
            LabelsError: As by `read`.
        """
        try:
            with pq.ParquetFile(path) as file:
                says = file.schema_arrow.metadata
                head = cls._checked(path, file.schema_arrow.empty_table(), says)
                yield head
                rows = max(1, min(_PART_ROWS, _PART_VALUES // len(head.labels)))
                for group in range(file.num_row_groups):  # one at a time: of all that it reads, pyarrow keeps the bytes
                    for batch in file.iter_batches(rows, row_groups=[group], columns=list(_COLUMNS)):
                        yield cls._checked(path, pa.Table.from_batches([batch]), says)
        except _UNREADABLE as error:
            raise _refused(path, str(error)) from error

    @classmethod
    def _checked(cls, path: Path, table: pa.Table, says: dict[bytes, bytes] | None) -> Self:
        metadata = json.loads((says or {}).get(METADATA_KEY, b"null"))
        if missing := [name for name in _COLUMNS if name not in table.column_names]:
            raise _refused(path, f"it has no column {', '.join(map(repr, missing))}")
        labels = metadata.get("labels") if isinstance(metadata, dict) else None
        if not isinstance(labels, list) or not labels or not all(isinstance(label, str) for label in labels):
            raise _refused(path, "its metadata names no labels")
        width = table.schema.field("probabilities").type
        if not pa.types.is_fixed_size_list(width) or width.list_size != len(labels):
            raise _refused(path, f"it has {len(labels)} labels, and probabilities of type {width}")
        table = _typed(table)
        if table["root"].null_count or table["path"].null_count:
            raise _refused(path, "it has rows that name no file")
        if strange := sorted(set(pc.unique(table["label"].cast(pa.string())).to_pylist()) - {None, *labels}):
            raise _refused(path, f"it has labels {strange} that its metadata does not name")
        return cls(path, table, tuple(labels), metadata)

    @property
    def readable(self) -> npt.NDArray[np.bool_]:
        """(rows,) whether the row has a label."""
        return np.asarray(pc.is_valid(self.table["label"]).to_numpy(zero_copy_only=False))

    @property
    def codes(self) -> npt.NDArray[np.int32]:
        """(rows,) position of each row's label in `labels`; -1 where it has none."""
        found = pc.index_in(self.table["label"].cast(pa.string()), pa.array(self.labels))
        return np.asarray(pc.fill_null(found, -1).to_numpy(zero_copy_only=False)).astype(np.int32)

    @property
    def probabilities(self) -> npt.NDArray[np.float32]:
        """(rows, classes), 0 to 1; what stands in rows that are not `readable` means nothing."""
        values = self.table["probabilities"].combine_chunks()
        filled = pc.fill_null(values.values if isinstance(values, pa.FixedSizeListArray) else values, 0.0)
        start = values.offset * len(self.labels)
        flat = filled.to_numpy(zero_copy_only=False)[start : start + len(values) * len(self.labels)]
        return np.asarray(flat, np.float32).reshape(-1, len(self.labels))

    @property
    def files(self) -> pa.ChunkedArray:
        """(rows,) where each image stood when it was classified."""
        return pc.binary_join_element_wise(self.table["root"].cast(pa.string()), self.table["path"], "/")

    @property
    def errors(self) -> Counter[str]:
        """How many rows have no label, by kind."""
        kinds = pc.list_element(pc.split_pattern(self.table["error"].drop_null(), ":", max_splits=1), 0)
        return Counter({item["values"]: item["counts"] for item in pc.value_counts(kinds).to_pylist()})

    @property
    def said(self) -> dict[str, str]:
        """What `metadata` says of how the rows were made, in words."""
        return {name: _said(self.metadata, keys) for name, keys in _PROVENANCE.items()}

    @property
    def throughput(self) -> dict[str, Any]:
        """What a run took, in words; files from before this was recorded say nothing."""
        found = self.metadata.get("throughput")
        found = found if isinstance(found, dict) else {}
        forms = {
            "files": ("files", "{:,}", 1),
            "speed": ("images_per_s", "{:,.1f} images/s", 1),
            "elapsed": ("elapsed_s", "{:,.1f} s", 1),
            "memory": ("peak_memory_bytes", "{:,.0f} MiB", 2**20),
        }
        stages = found.get("seconds")
        shown = {
            name: form.format(found[key] / unit if unit > 1 else found[key])
            if isinstance(found.get(key), int | float)
            else NOT_RECORDED
            for name, (key, form, unit) in forms.items()
        }
        spent = stages.items() if isinstance(stages, dict) else ()
        return {**shown, "stages": [(stage, s) for stage, s in spent if isinstance(s, int | float)]}


def _said(metadata: Mapping[str, Any], keys: Sequence[str]) -> str:
    found: Any = metadata
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return _preprocessing(found) if keys == ("preprocess",) else _words(found)


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key} {_words(item)}" for key, item in value.items() if item is not None) or "none"
    if isinstance(value, list):
        return ", ".join(map(_words, value)) or "none"
    return NOT_RECORDED if value is None else str(value)


def _preprocessing(found: Any) -> str:
    try:
        height, width = found["size_px"]
        cropped = f"shorter side scaled to {found['shorter_px']} px, centre of {width} x {height} px"
        size = f"stretched to {width} x {height} px" if found["resize"] == "stretch" else cropped
        scale = f"mean {_words(found['mean'])}; standard deviation {_words(found['std'])}"
        again = "; renormalised as torchvision's GoogLeNet" if found["transform_input"] else ""
        order = "; channels BGR" if found.get("channels") == "BGR" else ""
        return f"{size}, {found['interpolation']}; {scale}{order}{again}"
    except (KeyError, TypeError, ValueError):
        return _words(found)


def _typed(table: pa.Table) -> pa.Table:
    """``table`` with the columns of `_COLUMNS` in their types, and every string valid."""
    for position, name in enumerate(table.column_names):
        if (wanted := _COLUMNS.get(name)) is not None:
            column = table[name]
            if wanted == _WORDS and not pa.types.is_dictionary(column.type):
                column = column.dictionary_encode()
            table = table.set_column(position, name, column.cast(wanted))
    table.validate(full=True)
    return table


def _refused(path: Path, found: str) -> LabelsError:
    return LabelsError(f"{str(path)!r} is no predictions file of batchcls run: {found}")
