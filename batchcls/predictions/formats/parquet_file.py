"""Predictions files in Parquet, which holds the record of the run in its metadata."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from batchcls.predictions.schema import added_schema, file_schema
from batchcls.records import METADATA_KEY
from batchcls.storage.table_memory import check_parquet_size

RECORD_IS_BESIDE = False


class OpenParquet:
    """A Parquet file, open for reading."""

    def __init__(self, file: pq.ParquetFile) -> None:
        self._file = file

    @property
    def schema(self) -> pa.Schema:
        schema: pa.Schema = self._file.schema_arrow
        return schema

    @property
    def record(self) -> Mapping[str, Any]:
        record = json.loads((self.schema.metadata or {}).get(METADATA_KEY, b"{}"))
        return record if isinstance(record, dict) else {}

    @property
    def labels(self) -> tuple[str, ...]:
        return ()

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self._file.metadata.num_rows)

    def is_as_written(self) -> bool:
        return bool(self.record["counts"]["rows"] == self.rows)

    def table(self, columns: Sequence[str]) -> pa.Table:
        return self._file.read(list(columns)).select(list(columns))

    def batches(self, rows: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        # One group at a time: pyarrow keeps the bytes of all groups of one call.
        for group in range(self._file.num_row_groups):
            yield from self._file.iter_batches(rows, row_groups=[group], columns=list(columns))


@contextmanager
def opened(path: Path | str, stream: BinaryIO | None = None) -> Iterator[OpenParquet]:
    """A context that yields a Parquet file; see `PredictionsFormat.opened`."""
    with pq.ParquetFile(stream or path) as file:
        yield OpenParquet(file)


def check_size(path: Path, columns: Sequence[str], *, whole: bool) -> None:
    """Refuse a file that would take too much memory; see `PredictionsFormat.check_size`."""
    check_parquet_size(path, columns, whole=whole)


def write(stream: BinaryIO, rows: Iterable[pa.Table], labels: Sequence[str], record: Mapping[str, Any]) -> None:
    """Write a row group for each group of ``rows``; see `PredictionsFormat.write`."""
    kept = added_schema(record.get("identity", {}))
    schema = file_schema(len(labels), kept).with_metadata({METADATA_KEY: json.dumps(record)})
    with pq.ParquetWriter(stream, schema, compression="zstd") as writer:
        for group in rows:
            writer.write_table(group.cast(schema), row_group_size=len(group))
