"""The record in the Parquet file of a list of slides, and the rows of one shard in that file."""

import json
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batchcls.errors import SlidesError
from batchcls.images.sources.places import Place, place_kind
from batchcls.images.sources.table_files import ParquetTable, TableFile, open_table, table_errors
from batchcls.records import METADATA_KEY
from batchcls.storage.shards import Shard
from batchcls.storage.urls import bucket_and_key, is_url

DIGEST_BYTES = 16
HASH_COLUMN = "hash"
"""Column of a list that holds `batchcls.images.sources.shard.slide_hash` of each slide, as uint64."""


def is_list(table: TableFile) -> bool:
    """Whether a table holds all rows of a list that `batchcls list` wrote, and no others."""
    return isinstance(table, ParquetTable) and _has_all_rows(table.record, table.schema, table.rows)


def _has_all_rows(record: Mapping[str, Any], schema: pa.Schema, rows: int) -> bool:
    return (
        isinstance(record.get("list"), str)
        and record.get("rows") == rows
        and HASH_COLUMN in schema.names
        and schema.field(HASH_COLUMN).type == pa.uint64()
    )


class ListShard:
    """A `batchcls.images.sources.table_files.TableFile` of the rows of a list that are in one shard."""

    def __init__(self, table: TableFile, shard: Shard) -> None:
        self._table = table
        self._shard = shard

    @property
    def schema(self) -> pa.Schema:
        return self._table.schema

    @property
    def record(self) -> Mapping[str, Any]:
        return self._table.record

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        for batch in self._table.batches([*columns, HASH_COLUMN]):
            hashes = batch[HASH_COLUMN]
            if hashes.null_count:
                raise SlidesError("the list has rows without a hash; write it again with batchcls list")
            is_selected = hashes.to_numpy() % np.uint64(self._shard.count) == self._shard.index
            if is_selected.any():
                yield batch.select(list(columns)).filter(pa.array(is_selected))


def list_record(places: Sequence[Place]) -> dict[str, Any] | None:
    """What tells whether two runs have the same lists: a digest, and the number of slides where it is known.

    Returns:
        ``list``: The hexadecimal digest of all rows in order; of a list or table that another program wrote, of its
        bytes, or of its version in an object store; of several, of their digests. ``list_rows``: None where another
        program wrote the list, and for several. None if none of ``places`` is a list or table.

    Raises:
        SlidesError: If a list cannot be read.
    """
    records = [record for place in places if (record := _record_of(place))]
    if len(records) == 1 and len(places) == 1:
        return {"list": records[0][0], "list_rows": records[0][1]}
    digest = blake2b("".join(digest for digest, _ in records).encode(), digest_size=DIGEST_BYTES)
    return {"list": digest.hexdigest(), "list_rows": None} if records else None


def _record_of(place: Place) -> tuple[str, int | None] | None:
    """Digest and number of rows of a list or table; None for a place of another kind, and for standard input."""
    text, kind = str(place), place_kind(place)
    if kind not in ("list", "table") or text == "-":
        return None
    name = text.removeprefix("@") if kind == "list" else text
    if is_url(name):
        return _record_of_object(name)
    path = Path(name)
    if kind == "table" and is_list(table := open_table(path)):
        return str(table.record["list"]), int(table.record["rows"])
    with table_errors(text), path.open("rb") as stream:
        return file_digest(stream, lambda: blake2b(digest_size=DIGEST_BYTES)).hexdigest(), None


def _record_of_object(url: str) -> tuple[str, int | None]:
    """The same of a list or table in an object store, of which no more than a Parquet file's footer is read."""
    from batchcls.storage.object_reader import open_object  # obstore is an extra
    from batchcls.storage.object_store import object_errors, obstore, open_store

    bucket, key = bucket_and_key(url)
    with table_errors(url), object_errors(url):
        if key.lower().endswith(".parquet"):
            with open_object(url) as stream, pq.ParquetFile(stream) as file:
                record = json.loads((file.metadata.metadata or {}).get(METADATA_KEY, b"{}"))
                if isinstance(record, dict) and _has_all_rows(record, file.schema_arrow, file.metadata.num_rows):
                    return str(record["list"]), int(record["rows"])
        status = obstore.head(open_store(bucket), key)
    version = f"{status['e_tag'] or status['last_modified']} {status['size']}"
    return blake2b(version.encode(), digest_size=DIGEST_BYTES).hexdigest(), None
