"""Lists of slides: Parquet files that `batchcls list` writes once, so that many runs need not list again."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from batchcls.errors import OutputError, SlidesError
from batchcls.images.sources import open_source
from batchcls.images.sources.base import Source, SourceOptions
from batchcls.images.sources.list_record import DIGEST_BYTES, HASH_COLUMN
from batchcls.images.sources.places import Place
from batchcls.images.sources.shard import slide_hash
from batchcls.progress import RunProgress
from batchcls.records import METADATA_KEY, Slide
from batchcls.storage.atomic import check_replaceable_file, whole_file, writing
from batchcls.storage.file_names import printable
from batchcls.storage.timeouts import READ_TIMEOUT_S

LIST_SCHEMA = pa.schema(
    [
        ("root", pa.dictionary(pa.int32(), pa.string())),
        ("path", pa.string()),
        ("size_bytes", pa.int64()),
        ("modified", pa.timestamp("us", "UTC")),
        ("offset", pa.int64()),
        (HASH_COLUMN, pa.uint64()),
    ]
)
"""Columns of a list; ``hash`` is `batchcls.images.sources.shard.slide_hash`. Columns that the source keeps follow."""
_GROUP_ROWS = 65_536


@dataclass(frozen=True, slots=True)
class ListOptions:
    """How slides are listed."""

    read_timeout_s: float = READ_TIMEOUT_S
    """Seconds that the file system may take for one answer."""
    root: Path | None = None
    """Folder of the relative paths in lists and tables; None for the folder that each list or table is in."""
    allow_remote: bool = False
    """Whether lists and tables may name URLs."""
    keep: tuple[str, ...] = ()
    """Columns of tables that the list carries on, for the predictions."""
    overwrite: bool = False
    """Whether an existing list is replaced."""


@dataclass(frozen=True, slots=True)
class ListSummary:
    """Counts of a list of slides that has been written, and the places that could not be listed."""

    rows: int
    skipped: Counter[str]
    """Number of files and folders passed over, by reason."""
    unlisted: tuple[str, ...]
    """Folders that could not be listed, each with the reason."""


def list_slides(slides: Sequence[Place], out: Path, options: ListOptions, console: Console) -> ListSummary:
    """Write a list of all slides below ``slides``, whole or not at all, in memory that does not grow with the list.

    Args:
        slides: Places, as `batchcls.images.sources.open_source` takes them.
        out: Parquet file to write.
        console: Shows progress.

    Raises:
        OutputError: If ``out`` exists and is not to be replaced, or cannot be written.
        SlidesError: If there is no slide, or a column cannot be kept.
    """
    if out.suffix.lower() != ".parquet":
        raise OutputError(f"--out {str(out)!r} is not named .parquet, as lists are; name it {out.stem + '.parquet'!r}")
    check_replaceable_file(out)
    if os.path.lexists(out) and not options.overwrite:
        raise OutputError(f"{str(out)!r} exists; choose another --out, or replace it with --overwrite")
    if own := set(options.keep).intersection(LIST_SCHEMA.names):
        raise SlidesError(f"--keep {own.pop()}: a list has a column of its own by this name: rename it in the table")
    source_options = SourceOptions(
        timeout_s=options.read_timeout_s, root=options.root, allow_remote=options.allow_remote, keep=options.keep
    )
    with closing(open_source(slides, source_options)) as source:
        rows = write_list(source, out, console)
        return ListSummary(rows, source.skipped, tuple(source.unlisted))


def write_list(source: Source, out: Path, console: Console) -> int:
    """Write all slides of a source in its order, whole or not at all, and return their number.

    Raises:
        OutputError: If ``out`` cannot be written.
        SlidesError: If there is no slide.
    """
    schema = pa.schema([*LIST_SCHEMA, *source.kept])
    digest, rows = blake2b(digest_size=DIGEST_BYTES), 0
    with (
        writing(out),
        whole_file(out) as stream,
        pq.ParquetWriter(
            stream,
            schema,
            compression={field.name: "none" if field.name == HASH_COLUMN else "zstd" for field in schema},
            use_dictionary=["root", *source.kept.names],
        ) as writer,
        RunProgress(console, "listing") as progress,
    ):
        roots = [printable(root) for root in source.roots]
        for table, hashes in _tables(source, roots, schema):
            writer.write_table(table, row_group_size=_GROUP_ROWS)
            digest.update(hashes.tobytes())
            rows += len(table)
            progress.show(rows, 0, None, source.waiting())
        if not rows:
            passed_over = ", ".join(f"{count:,} {reason}" for reason, count in source.skipped.items())
            raise SlidesError(f"no image was found in {', '.join(map(repr, roots))} ({passed_over or 'nothing else'})")
        record = {"roots": roots, "rows": rows, "list": digest.hexdigest()}
        writer.add_key_value_metadata({METADATA_KEY: json.dumps(record).encode()})
    return rows


def _tables(source: Source, roots: Sequence[str], schema: pa.Schema) -> Iterator[tuple[pa.Table, np.ndarray[Any, Any]]]:
    """Rows of a list, a row group at a time, and their hashes."""
    slides = iter(source)
    codes = {root: position for position, root in enumerate(roots)}
    while group := list(islice(slides, _GROUP_ROWS)):
        hashes = np.fromiter(map(slide_hash, group), np.dtype("<u8"), len(group))
        columns = [
            pa.DictionaryArray.from_arrays(
                pa.array([codes[printable(slide.root)] for slide in group], pa.int32()), pa.array(roots, pa.string())
            ),
            pa.array([printable(slide.path) for slide in group], pa.string()),
            pa.array([slide.size_bytes for slide in group], pa.int64()),
            pa.array(_microseconds(group), pa.timestamp("us", "UTC")),
            pa.array([slide.offset for slide in group], pa.int64()),
            pa.array(hashes, pa.uint64()),
            *(pa.array([slide.kept[n] for slide in group], field.type) for n, field in enumerate(source.kept)),
        ]
        yield pa.Table.from_arrays(columns, schema=schema), hashes


def _microseconds(slides: Iterable[Slide]) -> list[int | None]:
    return [None if slide.modified_ns is None else slide.modified_ns // 1000 for slide in slides]
