"""Merge the files of all shards of a job into the file that one run would have written."""

import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePath
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.compute as pc

from batchcls.errors import LabelsError, OutputError, temporary_files
from batchcls.predictions.external_sort import sorted_tables
from batchcls.predictions.formats import format_to_write, parquet_file
from batchcls.predictions.row_key import KEY_COLUMNS
from batchcls.predictions.rows import PredictionRows
from batchcls.predictions.schema import added_schema
from batchcls.predictions.shard_files import ShardFile, open_shards
from batchcls.predictions.writer import GROUP_ROWS
from batchcls.storage.atomic import whole_file, writing
from batchcls.storage.file_names import original
from batchcls.storage.file_or_object import check_replaceable, exists
from batchcls.storage.output_names import partial_folder
from batchcls.storage.shards import shard_of_file


@dataclass(frozen=True, slots=True)
class MergeSummary:
    """What came of a merge."""

    shards: int
    rows: int
    errors: Counter[str]
    """Rows by kind of error."""
    unreadable_shards: tuple[int, ...]
    """Numbers of the shards with rows of files that a disk or a network did not hand out."""


def merge_shards(folder: Path | str, out: Path | str, *, overwrite: bool = False) -> MergeSummary:
    """Write the rows of all shards in ``folder`` to one predictions file, whole or not at all.

    Args:
        folder: The folder that `batchcls run --shard` wrote to, or its URL.
        out: The Parquet file to write, or its URL. A temporary file takes as much room as all rows, uncompressed:
            beside the file to write, or for a URL in the folder of temporary files.
        overwrite: Whether an existing ``out`` is replaced, once the new one is whole.

    Raises:
        LabelsError: If shards are missing, cannot be read, or do not belong together.
        OutputError: If ``out`` may not, or cannot, be written.
    """
    if format_to_write(out) is not parquet_file:
        name = f"{PurePath(out).stem}.parquet"
        raise OutputError(f"--out {str(out)!r}: shards are merged as .parquet; name it {name!r}")
    if shard_of_file(PurePath(out).name):
        raise OutputError(f"--out {str(out)!r} has the name of a shard's file; choose another --out")
    check_replaceable(out)
    if exists(out) and not overwrite:
        raise OutputError(f"{str(out)!r} exists; choose another --out, or replace it with --overwrite")
    if isinstance(out, Path) and os.path.lexists(partial_folder(out)):
        raise OutputError(f"{str(partial_folder(out))!r} holds the rows of an unfinished run; choose another --out")
    shards = open_shards(folder)
    try:
        record = merged_record([shard.record for shard in shards])
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise LabelsError(
            f"a shard in {str(folder)!r} has a damaged record: {error!r}; run every shard again"
        ) from error
    with _whole(out) as stream:
        parquet_file.write(stream, _merged(shards, out), record["labels"], record)
    counts = record["counts"]
    unreadable = [n for n, shard in enumerate(shards) if "unreadable" in shard.record["counts"]["errors"]]
    return MergeSummary(len(shards), counts["rows"], Counter(counts["errors"]), tuple(unreadable))


def merged_record(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The record of all shards together: what all have in common, counts and times added up, and a line for each."""
    first = records[0]
    shard = first["identity"]["shard"]
    limits = {
        key: first["limits"][key] for key in first["limits"] if _same(record["limits"][key] for record in records)
    }
    return {
        **first,
        "arguments": {**first["arguments"], "shard": None},
        "counts": _merged_counts([record["counts"] for record in records]),
        **_merged_novelty(records),
        "throughput": _merged_throughput([record["throughput"] for record in records]),
        "unlisted_folders": list(dict.fromkeys(chain(*(record["unlisted_folders"] for record in records)))),
        "identity": {key: value for key, value in first["identity"].items() if key != "shard"},
        "limits": limits,
        "started": min(record["started"] for record in records),
        "ended": max(record["ended"] for record in records),
        "shards": {
            "list": shard["list"],
            "rows": [record["counts"]["rows"] for record in records],
            "started": [record["started"] for record in records],
            "ended": [record["ended"] for record in records],
        },
    }


@contextmanager
def _whole(out: Path | str) -> Iterator[BinaryIO]:
    """A context that yields a stream, whose content becomes the file or object ``out`` if no error is raised."""
    if isinstance(out, Path):
        with writing(out), whole_file(out) as stream:
            yield stream
        return
    from batchcls.storage.object_upload import ObjectUpload  # obstore is an extra
    from batchcls.storage.object_url import ObjectUrl, object_output_errors

    with object_output_errors(out):
        upload = ObjectUpload(ObjectUrl.of(out))
        try:
            yield cast(BinaryIO, upload)
        except BaseException:
            upload.abandon()
            raise
        upload.complete(lambda: None)


def _merged(shards: Sequence[ShardFile], out: Path | str) -> Iterator[pa.Table]:
    """The rows of all shards in the order of a predictions file.

    Raises:
        LabelsError: If two rows are of one file.
    """
    identity, labels = shards[0].identity, tuple(shards[0].record["labels"])
    rows = PredictionRows([original(root) for root in identity["slides"]], labels, added_schema(identity))

    def scratch() -> BinaryIO:
        if isinstance(out, Path):
            return cast(BinaryIO, tempfile.TemporaryFile(dir=out.parent))  # its user closes it
        with temporary_files():
            return cast(BinaryIO, tempfile.TemporaryFile())

    last = None
    for table in sorted_tables(_as_parts(shards, rows), rows.schema, scratch, GROUP_ROWS):
        keys = table.select(list(KEY_COLUMNS))
        if last is not None:
            keys = pa.concat_tables([last, keys])
        _check_no_doubles(keys)
        last = keys.slice(len(keys) - 1)
        yield rows.with_words(table)


def _as_parts(shards: Sequence[ShardFile], rows: PredictionRows) -> Iterator[pa.RecordBatch]:
    """The rows of all shards, with positions of roots and labels."""
    for shard in shards:
        for batch in shard.batches():
            part = rows.of_whole(batch.select(rows.schema.names))
            if (
                part["root"].null_count
                or part["path"].null_count
                or part["label"].null_count != batch["label"].null_count
            ):
                raise LabelsError(
                    f"{str(shard.path)!r} has a row of no file, or of a folder or label that its run does not know; "
                    "remove it, and run its shard again"
                )
            yield part


def _check_no_doubles(keys: pa.Table) -> None:
    before, after = keys.slice(0, len(keys) - 1), keys.slice(1)
    equal = [pc.equal(before[name], after[name]) for name in KEY_COLUMNS]
    doubled = pc.and_(*equal)
    if pc.any(doubled).as_py():
        path = after["path"].filter(doubled)[0].as_py()
        raise LabelsError(f"two shards have a row of {path!r}; remove the folder of shards, and run every shard again")


def _merged_counts(counts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    summed = {name: Counter[str]() for name in ("labels", "errors", "sets") if name in counts[0] or name != "sets"}
    for name, counter in summed.items():
        for each in counts:
            counter.update(each[name])  # which keeps what is 0
    return {
        "rows": sum(each["rows"] for each in counts),
        "resumed_rows": sum(each["resumed_rows"] for each in counts),
        **{name: dict(counter) for name, counter in summed.items()},
        "skipped": _largest(each["skipped"] for each in counts),  # each shard lists all slides
    }


def _merged_novelty(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The entries ``novelty`` and ``drift`` of all shards together; none of an engine that cannot tell novelty.

    A shard is one part of every folder, and drifts as the whole does; that of the whole needs the engine's reference.
    """
    if "novelty" not in records[0]:
        return {}
    novelties = [record["novelty"] for record in records]
    images = sum(each["images"] for each in novelties)
    is_known = all(each["novel"] is not None for each in novelties)
    novel = sum(each["novel"] for each in novelties) if is_known else None
    note = "the drift of all shards together is not computed; each shard's file tells its own"
    return {
        "novelty": {**novelties[0], "images": images, "novel": novel},
        "drift": {"images": images, "note": note, "kinds": [], "effects": []},
    }


def _merged_throughput(figures: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    seconds: Counter[str] = Counter()
    for each in figures:
        seconds.update(each["seconds"])
    return {
        "files": sum(each["files"] for each in figures),
        "elapsed_s": max(each["elapsed_s"] for each in figures),
        "images_per_s": sum(each["images_per_s"] for each in figures),
        "seconds": dict(seconds),
        "peak_memory_bytes": max(each["peak_memory_bytes"] for each in figures),
    }


def _largest(counters: Iterable[Mapping[str, int]]) -> dict[str, int]:
    largest: dict[str, int] = {}
    for counter in counters:
        largest = {name: max(counter.get(name, 0), largest.get(name, 0)) for name in (*largest, *counter)}
    return largest


def _same(values: Iterable[Any]) -> bool:
    first, *others = values
    return all(value == first for value in others)
