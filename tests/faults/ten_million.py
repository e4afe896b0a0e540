"""Ten million rows, made and not classified, through the writer: `python -m tests.faults.ten_million`.

A process writes them and is killed; the next goes on, counts and finishes; the next does one row again, and so takes
over all others; the last finds nothing to do. Each says how much memory it took at most, mapped pages included.
"""

import argparse
import os
import resource
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from batchcls.predictions.writer import PredictionsWriter, open_writer
from batchcls.records import BatchResult, Failure, Predictions, Slide
from tests.faults.machine_line import machine_line

ROOT, LABELS = "/data/slides", ("Benign", "Early", "Pre", "Pro")
BATCH = 256
STRIDE = 7_368_787
"""A prime: every so-manyth slide, modulo their number, is each slide once, in an order that no key has."""


def slides(rows: int, shuffled: bool) -> Iterator[Slide]:
    for number in range(rows):
        place = number * STRIDE % rows if shuffled else number
        yield Slide(ROOT, f"patient-{place // 1000:05d}/field_{place % 1000:06d}.jpg", 20_000, place * 10**9)


def opened(out: Path) -> Any:
    return open_writer(out, roots=[ROOT], labels=LABELS, identity={"decoder": "none"})


def write(output: PredictionsWriter, missing: Iterator[Slide], broken: bool) -> int:
    """Write a row for each missing slide, the first of them with an error that may be gone another day."""
    rows = 0
    chance = np.random.default_rng(3)
    while batch := list(islice(missing, BATCH)):
        failures = [Failure(batch.pop(0), "unreadable", os.strerror(5))] if broken and not rows else []
        values = chance.random((len(batch), len(LABELS)), np.float32)
        values /= values.sum(axis=1, keepdims=True)
        answers = Predictions(values.argmax(axis=1).astype(np.int32), values, np.ones(len(batch), np.bool_))
        output.write(BatchResult(batch, [(224, 224)] * len(batch), answers, failures))
        rows += len(batch) + len(failures)
    output.flush()
    return rows


def measured(name: str, stage: Callable[[], str]) -> None:
    """Run a stage in a process of its own, and print what it says, its time, and its largest memory."""
    reading, writing = os.pipe()
    since = time.monotonic()
    child = os.fork()
    if not child:
        text = stage()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        os.write(writing, f"{text}, {peak / 1024:,.0f} MiB".encode())
        os.kill(os.getpid(), signal.SIGKILL)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as stream:
        print(f"{name}: {stream.read() or 'it ended early'}, {time.monotonic() - since:.0f} s", flush=True)


def first(out: Path, rows: int, shuffled: bool) -> str:
    output = opened(out)
    return f"{write(output, output.missing(slides(rows, shuffled)), True):,} rows written, then killed"


def resumed(out: Path, rows: int, shuffled: bool) -> str:
    with closing(opened(out)) as output:
        done = output.resumed_rows
        more = write(output, output.missing(slides(rows, shuffled)), True)  # the row with the error, again
        counts = output.counts()
        record = {"counts": {"rows": counts.rows, "labels": counts.labels, "errors": counts.errors, "skipped": {}}}
        output.finish(record)
    return f"{done:,} rows resumed, {more:,} more, {counts.rows:,} counted"


def again(out: Path) -> str:
    with closing(opened(out)) as output:
        more = write(output, output.missing(iter(())), False)
        counts = output.counts()
        record = {"counts": {"rows": counts.rows, "labels": counts.labels, "errors": counts.errors, "skipped": {}}}
        output.finish(record)
    return f"{output.resumed_rows:,} rows taken over, {more:,} again"


def settled(out: Path) -> str:
    return f"{opened(out).metadata['counts']['rows']:,} rows, nothing to do"


def check(out: Path, rows: int) -> str:
    """Whether every row is there once, in order."""
    last, seen = "", 0
    with pq.ParquetFile(out) as file:
        for batch in file.iter_batches(columns=["path"]):
            for path in batch["path"].to_pylist():
                if not last < path:
                    return f"{path} comes after {last}"
                last, seen = path, seen + 1
    return f"{seen:,} rows, {'complete and' if seen == rows else 'incomplete, but'} in order"


def main() -> None:
    """Print what came of each stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--shuffled", action="store_true", help="slides in an order that the file does not have")
    parser.add_argument("--scratch", type=Path, help="folder for the output")
    options = parser.parse_args()
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    print(f"{machine_line()}; {load}; {'shuffled' if options.shuffled else 'as listed'}", flush=True)
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        out = Path(folder) / "o.parquet"
        measured("killed", lambda: first(out, options.rows, options.shuffled))
        measured("resumed", lambda: resumed(out, options.rows, options.shuffled))
        print(check(out, options.rows), flush=True)
        measured("one again", lambda: again(out))
        measured("settled", lambda: settled(out))
        print(f"{check(out, options.rows)}; {out.stat().st_size / 1e6:,.0f} MB", flush=True)


if __name__ == "__main__":
    main()
