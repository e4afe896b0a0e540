"""The files of parts of an unfinished output: Arrow's file format, read a batch at a time."""

from collections.abc import Iterator, Sequence
from typing import BinaryIO

import pyarrow as pa


def part_batches(stream: BinaryIO, schema: pa.Schema, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The rows of a part; read and not mapped, so that the memory of a batch is free once it is dropped.

    Args:
        stream: The file.
        schema: Schema of the rows.
        columns: Columns to read; None: all.

    Raises:
        ArrowException, OSError, ValueError: If the file is damaged, or has other columns.
    """
    names = schema.names if columns is None else list(columns)
    wanted = pa.schema([schema.field(name) for name in names])
    places = sorted(map(pa.ipc.open_file(stream).schema.get_field_index, names))
    reader = pa.ipc.open_file(stream, options=pa.ipc.IpcReadOptions(included_fields=places))
    for number in range(reader.num_record_batches):
        yield reader.get_batch(number).select(names).cast(wanted)
