"""Sort rows by their key columns in memory that does not grow with the number of rows, by way of a scratch file."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchcls.predictions.row_key import KEY_COLUMNS

_MEMORY_BYTES = 16 << 20
"""Size of the rows that are sorted at one time; at most three copies of them exist."""
_BLOCKS = 256
"""Blocks of a run in a scratch file; a block is the least that is read."""
_Key = tuple[int, str]
"""Values of the key columns; Python orders texts by code points, which is the order of their bytes in UTF-8."""


def sorted_tables(
    batches: Iterable[pa.RecordBatch],
    schema: pa.Schema,
    scratch: Callable[[], BinaryIO],
    length: int,
    memory_bytes: int = _MEMORY_BYTES,
) -> Iterator[pa.Table]:
    """All rows in the order of a predictions file, ``length`` of them at a time; rows with equal keys in given order.

    Rows that do not fit into memory are sorted in two passes. The first takes the batches one after another, and
    writes them as sorted runs to a scratch file. The second divides the keys into ranges that fit into memory, and
    reads and sorts the rows of one range after another.

    Args:
        batches: Rows in any order, such as those of the parts of a run, or of the batches of Parquet files; none is
            kept when the next ones are taken.
        schema: Schema of the rows, whose key columns hold no null, and whose ``root`` is a position; no column is
            encoded by a dictionary.
        scratch: Returns an empty file, open for writing and reading, on a disk with room for all rows. It is called
            only if they do not fit into memory, and the file is closed at the end.
        length: Rows of each table; the last one may have fewer.
        memory_bytes: Size of the rows that are sorted at one time, but not fewer rows than ``length``.
    """
    runs = _sorted_runs(batches, schema, length, memory_bytes)
    first, second = next(runs, None), next(runs, None)
    if first is None or second is None:
        yield from _regrouped([first] if first is not None else [], length)
        return
    with scratch() as stream:
        runs = chain([first, second], runs)
        del first, second
        written = _write_runs(runs, schema, stream)
        stream.seek(0)
        yield from _regrouped(_sorted_ranges(written, stream), length)


class _WrittenRun:
    """A sorted run in a scratch file: consecutive blocks, which are read once, from the first to the last.

    Args:
        run: The rows.
        block_rows: Rows of each block but the last.
        first_block: Number of the first block in the file.
    """

    def __init__(self, run: pa.RecordBatch, block_rows: int, first_block: int) -> None:
        firsts = run.select(list(KEY_COLUMNS)).take(pa.array(range(0, len(run), block_rows)))
        self.keys: list[_Key] = list(zip(*(firsts[name].to_pylist() for name in KEY_COLUMNS), strict=True))
        """Key of the first row of each block."""
        self._first_block = first_block
        self._block = self._row = 0
        """First row that has not been read: number of its block within the run, and its position in the block."""

    def read_before(self, key: _Key | None, reader: pa.ipc.RecordBatchFileReader) -> Iterator[pa.RecordBatch]:
        """The rows that have not been read, up to the last one before ``key``; None: up to the end."""
        end_block = len(self.keys) if key is None else bisect_left(self.keys, key)
        while self._block < end_block:
            block = reader.get_batch(self._first_block + self._block)
            end = len(block) if key is None or self._block < end_block - 1 else _first_not_before(key, block)
            yield block.slice(self._row, end - self._row)
            if end < len(block):
                self._row = end
                return
            self._block, self._row = self._block + 1, 0


def _sorted_runs(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, length: int, memory_bytes: int
) -> Iterator[pa.RecordBatch]:
    """The rows in sorted runs of about ``memory_bytes``, and at least ``length`` rows."""
    pending: list[pa.RecordBatch] = []
    pending_bytes = pending_rows = 0
    for batch in batches:
        if len(batch):
            pending.append(batch.cast(schema))
            pending_bytes += batch.nbytes
            pending_rows += len(batch)
        if pending_bytes >= memory_bytes and pending_rows >= length:
            yield _in_order(pending)
            pending, pending_bytes, pending_rows = [], 0, 0
    if pending:
        yield _in_order(pending)


def _write_runs(runs: Iterable[pa.RecordBatch], schema: pa.Schema, stream: BinaryIO) -> list[_WrittenRun]:
    written, blocks = [], 0
    with pa.ipc.new_file(stream, schema) as writer:
        for run in runs:
            block_rows = -(-len(run) // _BLOCKS)
            written.append(_WrittenRun(run, block_rows, blocks))
            for start in range(0, len(run), block_rows):
                writer.write_batch(run.slice(start, block_rows))
            blocks += len(written[-1].keys)
    return written


def _sorted_ranges(runs: Sequence[_WrittenRun], stream: BinaryIO) -> Iterator[pa.RecordBatch]:
    """The rows of all runs, sorted, a range of keys at a time, which holds about as many rows as a run."""
    reader = pa.ipc.open_file(stream)
    keys = sorted(key for run in runs for key in run.keys)
    for splitter in [*dict.fromkeys(keys[_BLOCKS::_BLOCKS]), None]:
        if rows := [piece for run in runs for piece in run.read_before(splitter, reader)]:
            yield _in_order(rows)


def _first_not_before(key: _Key, rows: pa.RecordBatch) -> int:
    """Position of the first of sorted rows whose key is ``key`` or a later one; their number if there is none."""
    begin, end = 0, len(rows)
    for name, value in zip(KEY_COLUMNS, key, strict=True):
        column = rows[name].slice(begin, end - begin)
        wanted = pa.scalar(value, column.type)
        begin, end = (begin + pc.search_sorted(column, wanted, side=side).as_py() for side in ("left", "right"))
    return begin


def _in_order(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """The rows of all ``batches``, sorted by their keys."""
    rows = pa.concat_batches(batches)
    order = pc.sort_indices(rows, [(name, "ascending") for name in KEY_COLUMNS])
    is_sorted = np.array_equal(order, np.arange(len(rows), dtype=np.uint64))
    return rows if is_sorted else rows.take(order)


def _regrouped(batches: Iterable[pa.RecordBatch], length: int) -> Iterator[pa.Table]:
    """The same rows in tables of ``length``, each column in one piece, so that a file of them is always the same."""
    pending: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        begin = 0
        while rows + len(batch) - begin >= length:
            taken = length - rows
            yield pa.Table.from_batches([*pending, batch.slice(begin, taken)]).combine_chunks()
            begin += taken
            pending, rows = [], 0
        if begin < len(batch):
            pending.append(batch.slice(begin))
            rows += len(batch) - begin
    if pending:
        yield pa.Table.from_batches(pending).combine_chunks()
