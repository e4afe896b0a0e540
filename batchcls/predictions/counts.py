"""Counts over the rows of a predictions file."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from batchcls.predictions.answer_columns import SETS


@dataclass(frozen=True, slots=True)
class Counts:
    """How many rows a whole predictions file holds."""

    rows: int
    labels: Mapping[str, int]
    """Rows by label."""
    errors: Mapping[str, int]
    """Rows by kind of error: the text before the colon."""
    sets: Mapping[str, int]
    """Rows with a label whose set is ``empty``, is ``single``, or is ``void``, and the ``labels`` of all sets together;
    empty for a file without sets."""


def count_columns(schema: pa.Schema) -> list[str]:
    """Names of the columns of ``schema`` that `count_rows` needs."""
    return [name for name in ("label", "error", SETS) if name in schema.names]


def count_rows(batches: Iterable[pa.RecordBatch], labels: Sequence[str]) -> Counts:
    """The counts over all rows.

    Args:
        batches: Rows of parts: at least the columns `count_columns`.
        labels: The engine's labels, by position.
    """
    rows, codes, errors, sets = 0, Counter[int](), Counter[str](), Counter[str]()
    for batch in batches:
        rows += len(batch)
        codes += _value_counts(batch["label"].drop_null())
        errors += _value_counts(pc.list_element(pc.split_pattern(batch["error"].drop_null(), ":", max_splits=1), 0))
        if SETS in batch.schema.names:
            sets.update(_set_counts(batch[SETS].filter(batch["label"].is_valid())))
    return Counts(rows, {labels[code]: count for code, count in codes.items()}, errors, sets)


def _set_counts(sets: pa.ListArray) -> dict[str, int]:
    sizes = pc.list_value_length(sets)
    return {
        "empty": pc.sum(pc.equal(sizes, 0)).as_py() or 0,
        "single": pc.sum(pc.equal(sizes, 1)).as_py() or 0,
        "void": sets.null_count,
        "labels": pc.sum(sizes).as_py() or 0,
    }


def _value_counts(values: pa.Array) -> Counter[Any]:
    return Counter({item["values"]: item["counts"] for item in pc.value_counts(values).to_pylist()})
