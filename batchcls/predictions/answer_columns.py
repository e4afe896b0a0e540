"""The columns of answers that only some engines and options give, as Arrow arrays of a part's rows."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batchcls.records import Predictions

NOVELTY, NOVEL, MEASURES, SETS, EMBEDDING = "novelty", "novel", "measures", "labels_set", "embedding"
"""Names of the columns whose values an engine's features, or its promise of coverage, give."""
MANY_NOVEL = 0.1
"""Share of novel images above which an engine was hardly made for a run's images, and that is said at the top."""
TOP_LABELS, TOP_PROBABILITIES = "top_labels", "top_probabilities"
"""Names of the columns of the best labels, and of their probabilities."""


def answer_columns(predictions: Predictions, schema: pa.Schema) -> dict[str, pa.Array]:
    """The columns of ``schema`` for the rows of a part; null where an image has no such answer.

    Args:
        schema: Columns of `batchcls.predictions.schema.answer_schema`, as they stand in a part.
    """
    order = np.argsort(-predictions.probabilities, axis=1, kind="stable") if len(schema) else np.empty((0, 0), np.intp)
    best = order[:, : schema.field(TOP_PROBABILITIES).type.list_size] if TOP_LABELS in schema.names else order
    return {field.name: _column(field, predictions, order, best) for field in schema}


def replaced_values(lists: pa.ListArray, change: Callable[[pa.Array], pa.Array]) -> pa.ListArray:
    """Lists with their values changed all at once; a null stays null."""
    lengths: Any = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    return _lists(lengths, change(pc.list_flatten(lists)), lists.is_null())


def _column(
    field: pa.Field, predictions: Predictions, order: npt.NDArray[np.intp], best: npt.NDArray[np.intp]
) -> pa.Array:
    """One column.

    Args:
        order: (N, classes) positions of the labels, most probable first.
        best: (N, T) positions of the best labels, most probable first.
    """
    images = len(predictions.probabilities)
    if field.name == TOP_LABELS:
        return _lists(np.full(images, best.shape[1]), pa.array(best.ravel(), pa.int32()))
    if field.name == TOP_PROBABILITIES:
        return _fixed_lists(np.take_along_axis(predictions.probabilities, best, axis=1), field.type)
    values = predictions.added.get(field.name)
    if values is None:
        return pa.nulls(images, field.type)
    if field.name == NOVELTY:
        return pa.array(values.astype(np.float32), field.type, mask=np.isnan(values))
    if field.name == NOVEL:
        return pa.array(values > 0, field.type, mask=values < 0)
    if field.name == SETS:
        is_member = np.take_along_axis(values, order, axis=1) > 0
        return _lists(is_member.sum(axis=1), pa.array(order[is_member], pa.int32()), pa.array(values[:, 0] < 0))
    return _fixed_lists(values, field.type)


def _lists(lengths: npt.NDArray[Any], values: pa.Array, missing: pa.Array | None = None) -> pa.ListArray:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=missing)


def _fixed_lists(values: npt.NDArray[Any], kind: pa.DataType) -> pa.Array:
    """Rows of an array as lists, with null for a row of which a number is NaN."""
    flat = np.ascontiguousarray(values, kind.value_type.to_pandas_dtype()).ravel()
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), type=kind, mask=pa.array(np.isnan(values).any(axis=1)))
