"""Fifteen large images where there is little memory: `python -m tests.faults.shortages SCRATCH [DECODER...]`.

Under limits of address space, in a control group where one can be made, and under `--memory` alone. A run ends with a
row for every image, or with an error that names what did not fit, after which the same command without the limit goes
on. No image may ever be called corrupt, and with `--memory` the peak stays within it and a quarter. Ends with 1 if not.
"""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from batchcls.storage import memory
from tests.conftest import ALL4
from tests.faults.machine_line import machine_line

IMAGES: tuple[tuple[str, str, int, dict[str, Any]], ...] = (
    ("jpg", "RGB", 13900, {}),
    ("jpg", "RGB", 13900, {"progressive": True}),
    ("jpg", "RGB", 13900, {"progressive": True, "subsampling": 0}),
    ("jpg", "L", 13900, {}),
    ("jpg", "CMYK", 12000, {}),
    ("png", "RGB", 13900, {"compress_level": 1}),
    ("png", "P", 13900, {"compress_level": 1}),
    ("png", "L", 13900, {"compress_level": 1}),
    ("bmp", "RGB", 10000, {}),
    ("ppm", "RGB", 10000, {}),
    ("tif", "RGB", 11000, {"compression": "tiff_adobe_deflate", "tiffinfo": {278: 20000}}),
    ("tif", "RGB", 11000, {"compression": "tiff_lzw"}),
    ("tif", "L", 13900, {}),
    ("webp", "RGB", 10200, {"method": 0}),
    ("jp2", "RGB", 10000, {"quality_mode": "rates", "quality_layers": [60]}),
)
"""Ending, mode, side and how each is saved: 100 to 193 megapixels."""
ADDRESS_SPACE_MIB = (1000, 1500, 2000, 3000, 3700, 5000)
GROUP_MIB = (1500, 3000)
BUDGETS_MIB = (1500, 3000, 5000)
FEWER = {"pillow": (2000, 3700), "dali": (2000, 3700)}
"""Limits of address space for decoders that share most of what they do with turbo."""
COLUMNS = ["path", "label", "probabilities", "error"]
_ROOM = 1.25


def draw(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, (ending, mode, side, save) in enumerate(IMAGES):
        path = folder / f"{number:02d}.{ending}"
        if not path.exists():
            coarse = np.random.default_rng(number).integers(0, 255, (side // 256 + 1, side // 256 + 1, 3), np.uint8)
            image = Image.fromarray(coarse).resize((side, side), Image.Resampling.BILINEAR)
            image.convert(mode).save(path, **save)


def run(scratch: Path, decoder: str, out: str, prefix: str = "", *options: str) -> "subprocess.CompletedProcess[str]":
    arguments = [scratch / "images", "--out", scratch / out, "--engine", ALL4, "--device", "cpu", "--decoder", decoder]
    command = shlex.join([sys.executable, "-m", "batchcls", "run", *map(str, arguments), *options])
    return subprocess.run(["bash", "-c", f"{prefix} exec {command}"], capture_output=True, text=True, check=False)


def cleared(scratch: Path) -> None:
    subprocess.run(["rm", "-rf", scratch / "o.parquet", scratch / "o.parquet.partial"], check=True)


def told(scratch: Path, decoder: str, prefix: str, *options: str) -> tuple[str, bool]:
    """What became of a run, and whether it is as it should be."""
    cleared(scratch)
    done = run(scratch, decoder, "o.parquet", prefix, *options)
    lines = (done.stderr or done.stdout).strip().splitlines()
    good = done.returncode in (0, 1) and "Traceback" not in done.stderr and "corrupt" not in done.stdout
    result = f"exit {done.returncode}"
    if done.returncode:
        good &= lines[-1].startswith("batchcls: ")
        result += f", {lines[-1][:110] if lines else 'nothing said'}..."
        again = run(scratch, decoder, "o.parquet")
        result += f"; then exit {again.returncode}"
    rows = [pq.read_table(scratch / name, columns=COLUMNS) for name in ("o.parquet", f"{decoder}.parquet")]
    equal = rows[0].equals(rows[1])
    return f"{result}; rows equal {equal}, errors {rows[0]['error'].drop_null().to_pylist()}", good and equal


def peak_mib(scratch: Path, decoder: str, budget: int) -> tuple[str, bool]:
    """The most that a run with ``--memory`` had resident, as it says itself."""
    cleared(scratch)
    watched = (
        "import resource, subprocess, sys; "
        "code = subprocess.run(sys.argv[1:]).returncode; "
        "print('peak', resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10); sys.exit(code)"
    )
    arguments = [scratch / "images", "--out", scratch / "o.parquet", "--engine", ALL4, "--device", "cpu"]
    command = [sys.executable, "-m", "batchcls", "run", *map(str, arguments), "--decoder", decoder]
    done = subprocess.run(
        [sys.executable, "-c", watched, *command, "--memory", f"{budget}M"], capture_output=True, text=True, check=False
    )
    peak = int(done.stdout.split("peak ")[1])
    return f"exit {done.returncode}, peak {peak} MiB", peak <= budget * _ROOM and "corrupt" not in done.stdout


def group(limit_mib: int) -> Path | None:
    """A control group with a limit; None where none can be made."""
    for own, _, files in memory._memory_cgroups():
        folder = own / f"batchcls-{os.getpid()}-{limit_mib}"
        try:
            folder.mkdir()
            (folder / files[0]).write_text(str(limit_mib << 20))
        except OSError:
            continue
        return folder
    return None


def cases(scratch: Path, decoder: str) -> Iterator[tuple[str, tuple[str, bool]]]:
    for limit in FEWER.get(decoder, ADDRESS_SPACE_MIB):
        yield f"address space {limit} MiB", told(scratch, decoder, f"ulimit -v {limit << 10};")
    for limit in () if decoder in FEWER else GROUP_MIB:
        folder = group(limit)
        if folder is None:
            yield f"control group {limit} MiB", ("cannot be made here", True)
            continue
        yield f"control group {limit} MiB", told(scratch, decoder, f"echo $$ > {folder}/cgroup.procs;")
        folder.rmdir()
    for budget in BUDGETS_MIB[1:2] if decoder in FEWER else BUDGETS_MIB:
        yield f"--memory {budget}M", peak_mib(scratch, decoder, budget)


def main() -> None:
    scratch, decoders = Path(sys.argv[1]), sys.argv[2:] or ["turbo", "pillow", "dali"]
    print(machine_line(), flush=True)
    draw(scratch / "images")
    bad = 0
    for decoder in decoders:
        if not (scratch / f"{decoder}.parquet").exists():
            print(
                f"{decoder}: without a limit exit {run(scratch, decoder, f'{decoder}.parquet').returncode}", flush=True
            )
        for name, (result, good) in cases(scratch, decoder):
            bad += not good
            print(f"{decoder}, {name}: {'' if good else 'WRONG: '}{result}", flush=True)
    print(f"{bad} wrong")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
