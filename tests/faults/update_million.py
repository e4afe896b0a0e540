"""`batchcls run --update` of a million files, of which few have changed: `python -m tests.faults.update_million`.

The first file is made and not classified. Each update says how long it took and how much memory; loading the null
engine and listing included.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from batchcls.predictions.writer import PredictionsWriter, open_writer
from batchcls.records import METADATA_KEY, BatchResult, Predictions, Slide
from tests.conftest import ALL4, draw
from tests.faults.machine_line import machine_line

FOLDER_FILES, BATCH = 10_000, 1024


def linked(folder: Path, source: Path, files: int) -> Iterator[Path]:
    """So many links to one file, which all have its size and time."""
    for number in range(files):
        below = folder / f"{number // FOLDER_FILES:04d}"
        if not number % FOLDER_FILES:
            below.mkdir(parents=True)
        os.link(source, path := below / f"{number:08d}{source.suffix}")
        yield path


def command(folder: Path, out: Path, *options: str) -> list[str]:
    null = ("--engine", str(ALL4), "--backend", "null", "--device", "cpu", "--decoder", "pillow")
    return [sys.executable, "-m", "batchcls", "run", str(folder), "--out", str(out), *null, *options]


def make(folder: Path, out: Path, files: list[Path]) -> None:
    """A whole predictions file of ``files``, with the record of a run over one of them, which it replaces."""
    record = json.loads(pq.read_schema(out).metadata[METADATA_KEY])
    labels = record["labels"]
    with closing(
        open_writer(out, roots=[str(folder)], labels=labels, identity=record["identity"], overwrite=True)
    ) as output:
        assert isinstance(output, PredictionsWriter)
        paths = iter(files)
        values = np.full((BATCH, len(labels)), 1 / len(labels), np.float32)
        while batch := list(islice(paths, BATCH)):
            states = [(str(path.relative_to(folder)), path.stat()) for path in batch]
            slides = [Slide(str(folder), path, state.st_size, state.st_mtime_ns) for path, state in states]
            size = len(slides)
            answers = Predictions(np.zeros(size, np.int32), values[:size], np.ones(size, np.bool_))
            output.write(BatchResult(slides, [(16, 12)] * size, answers))
        counts = output.counts()
        said = {"rows": counts.rows, "labels": counts.labels, "errors": counts.errors, "skipped": {}}
        output.finish({**record, "counts": said})


def updated(name: str, folder: Path, out: Path, *options: str) -> None:
    since = time.monotonic()
    done = subprocess.run(command(folder, out, "--update", *options), check=True, capture_output=True, text=True)
    elapsed_s = time.monotonic() - since
    said = re.findall(r"^(?:updated|memory) +(.*)$", done.stdout, re.MULTILINE)
    print(f"{name}: {'; '.join(said)}; {elapsed_s:.0f} s", flush=True)


def main() -> None:
    """Print what came of each update."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--scratch", type=Path, help="folder for the files")
    options = parser.parse_args()
    print(f"{machine_line()}; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", flush=True)
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        folder, out = Path(scratch) / "slides", Path(scratch) / "o.parquet"
        other = draw(Path(scratch) / "other.bmp", 1, (16, 12))
        files = [draw(folder / "first.bmp", 0, (16, 12))]
        subprocess.run(command(folder, out), check=True, capture_output=True)
        while len(files) < options.files:  # a file system allows for some 65,000 links to one file
            source = draw(Path(scratch) / f"{len(files)}.bmp", 0, (16, 12))
            files += linked(folder / f"{len(files):08d}", source, min(50_000, options.files - len(files)))
        make(folder, out, files)
        updated("nothing new", folder, out)
        for path in files[:: max(1, len(files) // 1000)]:
            path.unlink()
            os.link(other, path)
        for path in files[1 :: max(1, len(files) // 1000)]:
            path.unlink()
        updated("a thousandth changed, a thousandth gone", folder, out, "--prune")
        updated("by content, all anew", folder, out, "--by-content")
        updated("by content, nothing new", folder, out, "--by-content")


if __name__ == "__main__":
    main()
