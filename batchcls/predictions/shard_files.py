"""The files of all shards of one job, found in their folder and held against one another."""

import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from batchcls.errors import LabelsError, temporary_files
from batchcls.predictions.formats import parquet_file
from batchcls.predictions.formats.base import OpenPredictions
from batchcls.predictions.schema import REQUIRED
from batchcls.storage.differences import differences
from batchcls.storage.file_or_object import opened_for_reading
from batchcls.storage.shards import index_ranges, is_like_shard_file, shard_of_file

_BATCH_ROWS = 65_536
_UNREADABLE = (pa.ArrowException, OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True, slots=True)
class ShardFile:
    """The whole file of one shard."""

    path: Path | str
    """The path of the file, or its URL."""
    schema: pa.Schema
    record: Mapping[str, Any]
    """The record of the shard's run."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.record["counts"]["rows"])

    @property
    def identity(self) -> dict[str, Any]:
        """The identity of the shard's run, with the list and its length, and without the number of the shard."""
        shard = self.record["identity"]["shard"]
        rest = {key: value for key, value in self.record["identity"].items() if key != "shard"}
        return {**rest, "list": shard["list"], "list_rows": shard["list_rows"]}

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows, some at a time.

        Raises:
            LabelsError: If the file cannot be read.
        """
        with _on_disk(self.path) as path, _opened(path, self.path) as file:
            parquet_file.check_size(path, self.schema.names, whole=False)
            yield from file.batches(_BATCH_ROWS, self.schema.names)


def open_shards(folder: Path | str) -> list[ShardFile]:
    """The files of all shards of a job, in the order of the shards.

    Args:
        folder: The folder that they are in, or its URL.

    Raises:
        LabelsError: If a shard is missing or unfinished, cannot be read, or is of another job than the others.
    """
    count, indexes, unfinished = _present(folder)
    if missing := set(range(count)).difference(indexes):
        begun = sorted(missing.intersection(unfinished))
        begun_text = f" ({index_ranges(begun)} begun and not finished)" if begun else ""
        raise LabelsError(
            f"{str(folder)!r} lacks {len(missing):,} of {count:,} shards{begun_text}; run these again, each goes on "
            f"where it was: {index_ranges(missing)}, that is --shard K/{count} for each, or with Slurm: "
            f"sbatch --array={index_ranges(missing)} SCRIPT, where SCRIPT has --shard auto/{count}"
        )
    at = f"{folder.rstrip('/')}/{{}}".format if isinstance(folder, str) else folder.joinpath
    shards = [_checked(at(name), index, count) for index, name in sorted(indexes.items())]
    _check_alike(folder, shards)
    rows, listed = sum(shard.rows for shard in shards), shards[0].identity["list_rows"]
    if listed is not None and rows != listed:
        raise LabelsError(
            f"the shards in {str(folder)!r} have {rows:,} rows together, and the list that they share out has "
            f"{listed:,}; remove the folder, and run every shard again"
        )
    if not rows:
        raise LabelsError(f"the shards in {str(folder)!r} have no rows: no image was found in any of them")
    return shards


def _present(folder: Path | str) -> tuple[int, dict[int, str], set[int]]:
    """The number of shards; the names of the whole files by their shards' numbers; the numbers of those begun."""
    names = _names(folder)
    whole = {shard: name for name in names if (shard := shard_of_file(name))}
    begun = {shard for name in names if (shard := shard_of_file(name.removesuffix(".partial"))) and name.endswith("l")}
    if strange := [name for name in names if is_like_shard_file(name) and not shard_of_file(name)]:
        raise LabelsError(
            f"{str(folder)!r} holds {strange[0]!r}, which is named like the file of a shard that cannot be; move it "
            "elsewhere"
        )
    counts = sorted({shard.count for shard in (*whole, *begun)})
    if not counts:
        raise LabelsError(
            f"{str(folder)!r} holds no file of a shard, such as 'shard-00000-of-00010.parquet'; run: batchcls run "
            f"SLIDES --shard K/N --out {folder}"
        )
    if len(counts) > 1:
        raise LabelsError(
            f"{str(folder)!r} holds shards of different numbers, {' and '.join(map(str, counts))}; move those of all "
            "numbers but one elsewhere"
        )
    return counts[0], {shard.index: name for shard, name in whole.items()}, {shard.index for shard in begun}


def _checked(path: Path | str, index: int, count: int) -> ShardFile:
    """The file of a shard, whose record tells the number of its rows and this shard."""
    with _opened(path, path) as file:
        shard = ShardFile(path, file.schema.remove_metadata(), file.record)
        if not file.record or not file.is_as_written() or not set(REQUIRED) <= set(file.schema.names):
            raise ValueError("it was changed since")
        recorded = file.record["identity"].get("shard")
        if not recorded:
            raise ValueError("it holds the rows of no shard, but of a whole run")
        if (recorded["index"], recorded["count"]) != (index, count):
            raise ValueError(f"it holds shard {recorded['index']}/{recorded['count']}")
        _ = (shard.identity, list(file.record["labels"]), dict(file.record["limits"]), dict(file.record["throughput"]))
        return shard


def _check_alike(folder: Path | str, shards: Sequence[ShardFile]) -> None:
    """Refuse shards that differ from most of the others in the identity of their run, or in their columns."""
    texts = [json.dumps([shard.identity, str(shard.schema)], sort_keys=True) for shard in shards]
    usual = Counter(texts).most_common(1)[0][0]
    others = [number for number, text in enumerate(texts) if text != usual]
    if not others:
        return
    other, usual_shard = shards[others[0]], shards[texts.index(usual)]
    alike = [number for number in others if texts[number] == texts[others[0]]]
    ours = differences(other.identity, usual_shard.identity) or f"columns {other.schema.names}"
    theirs = differences(usual_shard.identity, other.identity) or f"columns {usual_shard.schema.names}"
    raise LabelsError(
        f"of the shards in {str(folder)!r}, {index_ranges(alike)} were made with {ours}, most others with {theirs}; "
        f"remove their files, and run them again as the others: {index_ranges(others)}"
    )


def _names(folder: Path | str) -> list[str]:
    if isinstance(folder, str):
        from batchcls.storage.object_url import names_below  # obstore is an extra

        return names_below(folder)
    try:
        return os.listdir(folder)
    except OSError as error:
        raise LabelsError(f"{str(folder)!r} cannot be read: {error.strerror or error}") from error


@contextmanager
def _opened(path: Path | str, name: Path | str) -> Iterator[OpenPredictions]:
    """A context that yields a shard's file, open for reading.

    Args:
        name: Path or URL for messages.
    """
    try:
        with (
            opened_for_reading(path, follows_links=True) as stream,
            parquet_file.opened(path, stream) as file,
        ):
            yield file
    except _UNREADABLE as error:
        reason = (isinstance(error, OSError) and error.strerror) or " ".join(str(error).split())
        raise LabelsError(
            f"{str(name)!r} cannot be read as batchcls run wrote it: {reason}; mend that, or remove it and run its "
            "shard again"
        ) from error


@contextmanager
def _on_disk(path: Path | str) -> Iterator[Path]:
    """A context that yields the path of a shard's file on a disk, to which an object is copied."""
    if isinstance(path, Path):
        yield path
        return
    from batchcls.storage.object_url import ObjectUrl, object_output_errors  # obstore is an extra

    with temporary_files(), tempfile.TemporaryFile() as copy:  # which no kill leaves behind
        with object_output_errors(path):
            for block in ObjectUrl.of(path).blocks():
                copy.write(block)
            copy.flush()
        yield Path(f"/proc/self/fd/{copy.fileno()}")
