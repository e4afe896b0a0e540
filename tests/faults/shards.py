"""Shards of one list, each killed by SIGKILL at random moments and started again; merged, they equal a single run.

    python -m tests.faults.shards SCRATCH [--files 800000] [--shards 16] [--kills 2] [--seed 0]

Prints what came of it, and ends with 1 if the merged rows are not those of the single run. SCRATCH has to be on a disk
with room for that many names; the folder ``shards`` in it is made, and removed at the end.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq

from batchcls.storage.shards import Shard
from tests.commandline import partial, wait_for
from tests.conftest import ALL4, draw
from tests.faults.machine_line import machine_line

FOLDER_FILES, MOST_LINKS = 1000, 50_000
"""Files of a folder; links to one file, of which ext4 allows 65,000."""


def batchcls(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "batchcls", *map(str, arguments)]


def make_slides(folder: Path, files: int) -> None:
    """Links to few drawn images, in folders."""
    for number in range(files):
        if number % MOST_LINKS == 0:
            source = draw(folder.parent / f"{number}.jpg", number, (64, 48))
        below = folder / f"{number // FOLDER_FILES:05d}"
        if number % FOLDER_FILES == 0:
            below.mkdir(parents=True)
        os.link(source, below / f"{number:07d}.jpg")


def killed_and_finished(arguments: list[str], out: Path, kills: int, expected_s: float) -> Counter[str]:
    """Run one shard to its end, which is killed on the way: first at a random moment, then with rows on the disk."""
    came: Counter[str] = Counter()
    for kill in range(kills):
        process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if not out.exists():
            wait_for(partial(out) / "run.json", process)
        while kill and process.poll() is None and not list(partial(out).glob("part-*.arrow")):
            time.sleep(0.05)
        time.sleep(random.uniform(0, expected_s / 2))
        has_rows = bool(list(partial(out).glob("part-*.arrow")))
        process.send_signal(signal.SIGKILL)
        has_ended = process.wait() != -signal.SIGKILL or out.exists()
        came["at the end" if has_ended else "with rows on the disk" if has_rows else "without"] += 1
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}\n{done.stderr}")
    return came


def main() -> None:
    """Print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--files", type=int, default=800_000)
    parser.add_argument("--shards", type=int, default=16)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    random.seed(options.seed)
    print(machine_line(), flush=True)
    place = options.scratch / "shards"
    place.mkdir(parents=True)
    try:
        check(place, options)
    finally:
        shutil.rmtree(place)


def check(place: Path, options: argparse.Namespace) -> None:
    """Run everything in ``place``; SystemExit if the rows differ."""
    since = time.monotonic()
    make_slides(place / "slides", options.files)
    listed, whole, preds, merged = (
        place / name for name in ("files.parquet", "whole.parquet", "preds", "merged.parquet")
    )
    common = ("--engine", ALL4, "--backend", "null", "--device", "cpu")
    subprocess.run(batchcls("list", place / "slides", "--out", listed), check=True, stdout=subprocess.DEVNULL)
    print(f"{options.files:,} files made and listed in {time.monotonic() - since:,.0f} s", flush=True)
    since = time.monotonic()
    subprocess.run(batchcls("run", listed, *common, "--out", whole, "--quiet"), check=True)
    single_s = time.monotonic() - since
    print(f"a single run took {single_s:,.0f} s", flush=True)

    came: Counter[str] = Counter()
    since = time.monotonic()
    for index in range(options.shards):
        shard = Shard(index, options.shards)
        arguments = batchcls("run", listed, *common, "--shard", f"{index}/{options.shards}", "--out", preds)
        came += killed_and_finished(arguments, preds / shard.file_name, options.kills, single_s / options.shards)
    print(
        f"{options.shards} shards, each killed {options.kills} times, took {time.monotonic() - since:,.0f} s",
        flush=True,
    )
    print("kills: " + ", ".join(f"{text} {count}" for text, count in sorted(came.items())), flush=True)

    since = time.monotonic()
    subprocess.run(batchcls("merge", preds, "--out", merged), check=True)
    print(f"merged in {time.monotonic() - since:,.1f} s", flush=True)
    rows, expected = pq.read_table(merged), pq.read_table(whole)
    if not rows.equals(expected) or len(rows) != options.files or list(preds.glob("*.partial")):
        raise SystemExit(f"the merged file has {len(rows):,} rows, which are not those of the single run")
    print(f"the {len(rows):,} merged rows are those of the single run, in its order")


if __name__ == "__main__":
    main()
