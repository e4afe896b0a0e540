"""SIGKILL at random times while a run writes to an object store; then the same command, until 20 runs were killed.

    python -m tests.faults.kill_remote SCRATCH [moto] [azurite]

Prints a table, and ends with 1 if any file is not equal to that of an undisturbed run on a disk, or anything is left
over beside it.
"""

import io
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pyarrow as pa
import pyarrow.parquet as pq

from batchcls.storage.object_url import ObjectUrl
from tests.azurite import object_server
from tests.commandline import command
from tests.conftest import ALL4, draw
from tests.faults.machine_line import machine_line

KILLS = 20
FILES, OPTIONS = 40_000, ("--engine", str(ALL4), "--backend", "null", "--decoder", "pillow", "--quiet")
"""So many that two parts are written before the end."""


def timed_run(slides: Path, out: str, until_s: float | None = None) -> tuple[int, float]:
    """Exit code and seconds of a run, which is killed after ``until_s``; negative: the signal."""
    began = time.monotonic()
    process = subprocess.Popen(command(slides, "--out", out, *OPTIONS))
    try:
        code = process.wait(until_s)
    except subprocess.TimeoutExpired:
        process.kill()
        code = process.wait()
    return code, time.monotonic() - began


def killed_outputs(kind: str, bucket: str, slides: Path, whole: pa.Table, seed: int) -> tuple[int, int, int, list[str]]:
    """Runs that were killed, of these the ones with parts already written, whole files, and what was wrong."""
    chance = random.Random(seed)
    kills = with_parts = files = 0
    wrong: list[str] = []
    _, run_s = timed_run(slides, f"{bucket}/undisturbed/o.parquet")
    while kills < KILLS:
        folder = f"{bucket}/{files}"
        out = f"{folder}/o.parquet"
        code = -int(signal.SIGKILL)
        while code == -signal.SIGKILL:
            code, seconds = timed_run(slides, out, chance.uniform(1, run_s) if kills < KILLS else None)
            if code == -signal.SIGKILL:
                kills += 1
                with_parts += any(name.startswith("part-") for name in ObjectUrl.of(f"{out}.partial").names())
        run_s = seconds  # on a busy machine it changes
        files += 1
        left = [name for name in ObjectUrl.of(folder).names() if name != "o.parquet"]
        is_equal = code == 0 and pq.read_table(io.BytesIO(ObjectUrl.of(out).read(1 << 30))).equals(whole)
        if code or left or not is_equal:
            wrong.append(
                f"{kind}, file {files}: exit {code}, {'equal' if is_equal else 'other rows'}, left over {left}"
            )
    return kills, with_parts, files, wrong


def many_files(folder: Path) -> Path:
    """A folder of small images; each of a few images is linked many times."""
    first = [draw(folder / "first" / f"{seed}.bmp", seed, (16, 12)) for seed in range(20)]
    for number in range(FILES):
        place = folder / "slides" / f"{number // 1000:03d}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:06d}.bmp").hardlink_to(first[number % len(first)])
    return folder / "slides"


if __name__ == "__main__":
    scratch = Path(sys.argv[1])
    images = many_files(scratch)
    local = scratch / "undisturbed.parquet"
    timed_run(images, str(local))
    rows = pq.read_table(local)
    click.echo(f"# {machine_line()}; {FILES:,} files; {time.strftime('%Y-%m-%d')}")
    click.echo(
        "| store | killed | with parts written | whole files | equal, nothing left over |\n|---|---|---|---|---|"
    )
    bad = 0
    for seed, store in enumerate(sys.argv[2:] or ["moto", "azurite"]):
        (scratch / store).mkdir()
        with object_server(store, scratch / store) as url:
            killed, parted, wholes, faults = killed_outputs(store, url, images, rows, seed)
        click.echo("\n".join([f"| {store} | {killed} | {parted} | {wholes} | {wholes - len(faults)} |", *faults]))
        bad += len(faults)
    sys.exit(bool(bad))
