"""Ten million rows that are listed, shared out and merged, without the images: times and memory.

    python -m tests.faults.million_shards SCRATCH [--rows 10000000] [--shards 1000]

Prints how long writing the list, starting a shard from it, and merging the shards take, and their peak memory. The
folder ``rows`` in SCRATCH is made, and removed at the end.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from batchcls.images.slide_list import write_list
from batchcls.images.sources.base import NOTHING_KEPT
from batchcls.predictions.formats import parquet_file
from batchcls.predictions.schema import file_schema
from batchcls.records import METADATA_KEY, Slide
from batchcls.storage.shards import Shard
from tests.conftest import ALL4, draw
from tests.faults.machine_line import machine_line

STARTING = """
import sys, time
from contextlib import closing
from pathlib import Path
from batchcls.images.sources import open_source
from batchcls.images.sources.base import SourceOptions
from batchcls.images.sources.list_record import list_record
from batchcls.storage.shards import Shard
place, count = Path(sys.argv[1]), int(sys.argv[2])
since = time.monotonic()
list_record([place])
with closing(open_source([place], SourceOptions(shard=Shard(count // 2, count)))) as source:
    slides = iter(source)
    next(slides)
    print(f"{time.monotonic() - since:.2f} s to the first image of a shard,", end=" ")
    print(f"{1 + sum(1 for _ in slides):,} images after {time.monotonic() - since:.2f} s")
"""
LABELS = ("a", "b", "c", "d")


class NumberedSlides:
    """A source of names that no file has."""

    kept = NOTHING_KEPT
    roots = ("slides",)
    complete = True

    def __init__(self, count: int) -> None:
        self.count = count
        self.skipped: Counter[str] = Counter()
        self.unlisted: list[str] = []

    def __iter__(self) -> Iterator[Slide]:
        return (Slide("slides", path_of(number), 20_000, 10**18) for number in range(self.count))

    def waiting(self) -> None:
        return None

    def close(self) -> None:
        """There is nothing to end."""


def path_of(number: int) -> str:
    return f"patient-{number // 500:06d}/field_{number:09d}.jpg"


def main() -> None:
    """Print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--shards", type=int, default=1000)
    options = parser.parse_args()
    print(machine_line(), flush=True)
    place = options.scratch / "rows"
    place.mkdir(parents=True)
    try:
        since = time.monotonic()
        write_list(NumberedSlides(options.rows), place / "files.parquet", Console(quiet=True))
        print(f"{options.rows:,} names listed in {time.monotonic() - since:,.0f} s", flush=True)
        measured("one shard listed", [sys.executable, "-c", STARTING, place / "files.parquet", options.shards])
        make_shards(place, options.rows, options.shards)
        print(f"{options.shards:,} shards made", flush=True)
        arguments = ["merge", place / "preds", "--out", place / "merged.parquet", "--quiet"]
        measured("merged", [sys.executable, "-m", "batchcls", *arguments])
        check_order(place / "merged.parquet", options.rows)
    finally:
        shutil.rmtree(place)


def measured(task: str, command: list[object]) -> None:
    """Run a program, and print its time and its memory; that of the programs before, if one of them took more."""
    since = time.monotonic()
    subprocess.run(list(map(str, command)), check=True)
    peak_mib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**10
    print(f"{task}: {time.monotonic() - since:.1f} s in all, {peak_mib:,.0f} MiB at most", flush=True)


def make_shards(place: Path, rows: int, shards: int) -> None:
    """Files of shards as `batchcls run` writes them, with the record of a run of one image."""
    draw(place / "one" / "1.bmp", 1, (16, 12))
    common = ["--engine", ALL4, "--backend", "null", "--device", "cpu", "--shard", "0/1", "--out", place / "one-shard"]
    command = [sys.executable, "-m", "batchcls", "run", place / "one", *common, "--quiet"]
    subprocess.run(list(map(str, command)), check=True)
    record = json.loads(pq.read_schema(place / "one-shard" / Shard(0, 1).file_name).metadata[METADATA_KEY])
    record["identity"] |= {"slides": ["slides"], "labels": LABELS}
    (place / "preds").mkdir()
    numbers = np.random.default_rng(0)
    shard_of = numbers.integers(0, shards, rows, dtype=np.int32)
    order = np.argsort(shard_of, kind="stable")
    ends = np.searchsorted(shard_of[order], np.arange(shards + 1))
    for index in range(shards):
        table = rows_of(order[ends[index] : ends[index + 1]], numbers)
        shard = Shard(index, shards)
        record["counts"]["rows"] = len(table)
        record["identity"]["shard"] = {"index": index, "count": shards, "list": "0" * 32, "list_rows": rows}
        with (place / "preds" / shard.file_name).open("wb") as stream:
            groups = (table.slice(start, 32_768) for start in range(0, len(table), 32_768))
            parquet_file.write(stream, groups, LABELS, record | {"labels": LABELS})


def rows_of(numbers: "np.ndarray[tuple[int], np.dtype[np.int64]]", chance: np.random.Generator) -> pa.Table:
    """Rows of a predictions file, one for each number."""
    count = len(numbers)
    probabilities = chance.dirichlet([1.0] * len(LABELS), count).astype(np.float32)
    columns = [
        pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array(["slides"])),
        pa.array(map(path_of, numbers.tolist()), pa.string()),
        pa.DictionaryArray.from_arrays(pa.array(probabilities.argmax(axis=1).astype(np.int32)), pa.array(LABELS)),
        pa.array(probabilities.max(axis=1, initial=0)),
        pa.FixedSizeListArray.from_arrays(pa.array(probabilities.ravel()), len(LABELS)),
        pa.array(np.full(count, 1024, np.int32)),
        pa.array(np.full(count, 768, np.int32)),
        pa.array(chance.integers(10_000, 400_000, count)),
        pa.array(chance.integers(1_600_000_000_000_000, 1_700_000_000_000_000, count), pa.timestamp("us", "UTC")),
        pa.nulls(count, pa.string()),
    ]
    return pa.table(columns, schema=file_schema(len(LABELS)))


def check_order(path: Path, rows: int) -> None:
    """SystemExit unless the rows of a merged file are those of all numbers, in order."""
    number = 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(columns=["path"]):
            if batch["path"].to_pylist() != [path_of(number + row) for row in range(len(batch))]:
                raise SystemExit(f"the rows after {number:,} are others")
            number += len(batch)
    if number != rows:
        raise SystemExit(f"{number:,} rows instead of {rows:,}")
    print(f"all {rows:,} rows are there, in their order")


if __name__ == "__main__":
    main()
