"""A run over many small files, some of them hostile, killed again and again: `python -m tests.faults.million`.

The rows of what was killed five times must be those of a run that nothing disturbed.
"""

import argparse
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq

from tests.conftest import draw
from tests.faults.machine_line import machine_line

SOURCES, HOSTILE_SOURCES = 60, 400
ENDINGS = (".bmp", ".jpg", ".png", ".tif", ".webp")
KILLS = 5


def sources(folder: Path) -> tuple[list[Path], list[Path]]:
    """Sound small images; and others with bytes changed, cut off, or taken away."""
    chance = random.Random(13)
    sound = [draw(folder / f"{seed}{ENDINGS[seed % len(ENDINGS)]}", seed, (16, 12)) for seed in range(SOURCES)]
    hostile = []
    for number in range(HOSTILE_SOURCES):
        source = sound[number % SOURCES]
        data = bytearray(source.read_bytes())
        for _ in range(chance.choice((1, 3, 30))):
            data[chance.randrange(len(data))] = chance.randrange(256)
        path = folder / f"hostile{number}{source.suffix}"
        path.write_bytes(data[: chance.choice((0, len(data) // 2, len(data), len(data)))])
        hostile.append(path)
    return sound, hostile


def fill(slides: Path, files: int, sound: list[Path], hostile: list[Path]) -> None:
    """So many names in folders of a thousand; each hundredth is hostile."""
    for number in range(files):
        if number % 1000 == 0:
            folder = slides / f"{number // 1000:05d}"
            folder.mkdir(parents=True)
        among = hostile if number % 100 == 0 else sound
        source = among[number // 100 % len(among)]
        os.link(source, folder / f"{number % 1000:03d}{source.suffix}")


def started(slides: Path, out: Path, engine: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "batchcls", "run", "--device", "cpu", slides, "--out", out, "--engine", engine]
    return subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def rows_said(process: "subprocess.Popen[str]", at_least: int) -> int:
    """How many rows a run says that it has, once that is enough."""
    assert process.stderr is not None
    for line in process.stderr:
        said = re.match(r"([\d,]+) (?:of [\d,]+ )?files", line)
        if said and int(said[1].replace(",", "")) >= at_least:
            return int(said[1].replace(",", ""))
    raise SystemExit(f"it ended by itself, before {at_least:,} rows")


def main() -> None:
    """Print what came of both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", type=Path, help="a small one, for the files are many")
    parser.add_argument("--files", type=int, default=1_000_000)
    options = parser.parse_args()
    print(machine_line(), flush=True)
    with tempfile.TemporaryDirectory() as scratch_name:
        scratch = Path(scratch_name)
        slides, whole, out = scratch / "slides", scratch / "whole.parquet", scratch / "killed.parquet"
        fill(slides, options.files, *sources(scratch / "sources"))
        since = time.monotonic()
        summary, _ = started(slides, whole, options.engine).communicate()
        print(f"undisturbed, {time.monotonic() - since:.0f} s:\n{summary}", flush=True)
        for kill in range(1, KILLS + 1):
            process = started(slides, out, options.engine)
            rows = rows_said(process, kill * options.files // (KILLS + 1))
            process.send_signal(signal.SIGKILL)
            process.communicate()
            print(f"killed after {rows:,} rows", flush=True)
        summary, _ = started(slides, out, options.engine).communicate()
        print(f"the same command:\n{summary}", flush=True)
        first, second = pq.read_table(whole), pq.read_table(out)
        names = first["path"].to_pylist()
        print(f"{len(first):,} and {len(second):,} rows, {len(set(names)):,} names; equal: {first.equals(second)}")
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        print(f"largest process: {peak / 1024:,.0f} MiB")


if __name__ == "__main__":
    main()
