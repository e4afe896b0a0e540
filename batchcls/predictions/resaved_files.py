"""Predictions files that another program wrote again: their types, and the order of labels they no longer record."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batchcls.storage.column_values import one_array

_LARGEST_ROUNDING = 1e-5
"""Largest difference by rounding between a row's ``probability`` and the largest of its ``probabilities``."""


def fixed_lists(column: pa.ChunkedArray, length: int) -> pa.ChunkedArray:
    """Lists of any Arrow type as lists of ``length`` float32; a null stays null.

    Raises:
        ValueError: If a list has another length.
    """
    if pa.types.is_fixed_size_list(column.type):
        if column.type.list_size != length:
            raise ValueError(f"it has {length} labels, and {column.type.list_size} probabilities a row")
        return column.cast(pa.list_(pa.float32(), length))
    has_list = np.asarray(pc.is_valid(column).to_numpy(zero_copy_only=False), bool)
    values = np.zeros((len(has_list), length), np.float32)
    if has_list.any():
        answers = _matrix(column.filter(pa.array(has_list)))
        if answers.shape[1] != length:
            raise ValueError(f"it has {length} labels, and {answers.shape[1]} probabilities a row")
        values[has_list] = answers
    lists = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), length, mask=pa.array(~has_list))
    return pa.chunked_array([lists.cast(pa.list_(pa.float32(), length))])


def even_lists(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """Lists of any Arrow type as lists of one length, that of each list which is not null, with values of ``kind``.

    Raises:
        ValueError: If the lengths differ.
    """
    if pa.types.is_fixed_size_list(column.type):
        return column.cast(pa.list_(kind, column.type.list_size))
    if pa.types.is_null(column.type):  # as pandas writes a column without a value
        return column.cast(pa.list_(kind, 0))
    lengths = pc.unique(pc.list_value_length(column.drop_null())).to_pylist()
    if len(lengths) > 1:
        raise ValueError(f"it has lists of different lengths: {lengths[:3]}")
    return column.cast(pa.list_(kind, lengths[0] if lengths else 0))


def label_order(tables: Iterable[pa.Table], labels: Sequence[str] = ()) -> tuple[str, ...]:
    """The labels in the order of the probabilities, inferred from rows: each row's label is its most probable one.

    Args:
        tables: Parts of the file, with the columns label, probability and probabilities.
        labels: The labels in the order that the user names; empty if the user names none.

    Raises:
        ValueError: If rows contradict one another or ``labels``; or if no row has a certain label as its most probable
            one, and the user names none.
    """
    order: dict[int, str] = {}
    length = len(labels)
    for table in tables:
        rows = table.select(["label", "probability", "probabilities"]).filter(pc.is_valid(table["label"]))
        if not len(rows):
            continue
        answers = _matrix(rows["probabilities"])
        if length not in (0, answers.shape[1]):
            raise ValueError(f"it has {answers.shape[1]} probabilities a row, not {length}")
        length = answers.shape[1]
        for position, label in _clear_labels(rows, answers):
            if order.setdefault(position, label) != label:
                raise ValueError(f"its label is not always the most probable one: {order[position]!r} and {label!r}")
    is_ambiguous = len(set(order.values())) < len(order)
    if is_ambiguous or any(labels[position] != label for position, label in order.items() if labels):
        inferred = ", ".join(f"{order[position]!r} is number {position + 1}" for position in sorted(order))
        raise ValueError(f"its labels are not in one order, or not in that of --labels: by its rows {inferred}")
    if len(order) < length and not labels:
        inferred = ",".join(order.get(position, "?") for position in range(length))
        raise ValueError(
            "another program wrote it again and left out what its labels are, and no row tells those that stand as ? "
            f"in the order of its probabilities, {inferred}; name them all: --labels A,B,..., or take the file that "
            "batchcls run wrote"
        )
    return tuple(labels) or tuple(order[position] for position in range(length))


def _clear_labels(rows: pa.Table, answers: npt.NDArray[np.float32]) -> set[tuple[int, str]]:
    """Position of the largest probability, and label, of each row in which only one probability is the largest."""
    top = answers.max(axis=1)
    recorded = np.asarray(rows["probability"].cast(pa.float32()).to_numpy(), np.float32)
    if (np.abs(recorded - top) > _LARGEST_ROUNDING).any():
        raise ValueError("its column probability is not the largest of its probabilities")
    clear = (answers == top[:, None]).sum(axis=1) == 1
    words = one_array(rows["label"].cast(pa.string())).dictionary_encode()
    codes = np.stack([answers.argmax(axis=1), words.indices.to_numpy()], axis=1)[clear]
    return {(int(position), str(words.dictionary[int(code)])) for position, code in np.unique(codes, axis=0)}


def _matrix(column: pa.ChunkedArray) -> npt.NDArray[np.float32]:
    """(rows, length) float32 of lists that all have one length and no null.

    Raises:
        ValueError: If lengths differ, or are 0.
    """
    lengths = pc.unique(pc.list_value_length(column)).to_pylist()
    if len(lengths) != 1 or not lengths[0]:
        raise ValueError(f"its probabilities are lists of different lengths: {lengths[:3]}")
    values: Any = pc.list_flatten(column).cast(pa.float32()).to_numpy()
    return np.asarray(values, np.float32).reshape(-1, lengths[0])
