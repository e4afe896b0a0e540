"""Values of Arrow columns as Python objects, such that a column of the same type can be made of them again."""

from typing import Any

import pyarrow as pa


def exact_values(column: pa.Array | pa.ChunkedArray) -> list[Any]:
    """The values of a column; dates and times as whole numbers of their unit, which Python's own would round.

    Raises:
        ValueError: If a text is not UTF-8.
    """
    kind = column.type
    if pa.types.is_date32(kind):
        column = column.cast(pa.int32())
    elif pa.types.is_timestamp(kind):
        column = column.cast(pa.int64())
    values: list[Any] = column.to_pylist()
    return values


def one_array(column: pa.ChunkedArray) -> pa.Array:
    """A column in one piece."""
    array = column.combine_chunks()
    return array if isinstance(array, pa.Array) else pa.concat_arrays(array.chunks)
