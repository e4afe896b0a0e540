"""A million paths through `Engine.stream`, in order and in bounded memory: `python -m tests.faults.million_paths`."""

import argparse
import resource
import tempfile
import time
from pathlib import Path

from batchcls import Engine
from batchcls.machine import peak_memory_bytes
from tests.conftest import ALL4, draw
from tests.faults.machine_line import machine_line

SOURCES = 60


def main() -> None:
    """Print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", type=Path, default=ALL4)
    parser.add_argument("--backend", default="null", help="null: no inference, only what images need besides it")
    parser.add_argument("--paths", type=int, default=1_000_000)
    options = parser.parse_args()
    print(machine_line(), flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        names = [str(draw(Path(scratch) / f"{seed}.jpg", seed, (160, 120))) for seed in range(SOURCES)]
        paths = (names[number % SOURCES] for number in range(options.paths))
        since, rows = time.monotonic(), 0
        with Engine.load(options.engine, device="cpu", backend=options.backend) as engine:
            print(f"{peak_memory_bytes() / 2**20:,.0f} MiB with the engine loaded", flush=True)
            for batch in engine.stream(paths):
                for path in batch["path"].to_pylist():
                    if path != names[rows % SOURCES].rpartition("/")[2]:
                        raise SystemExit(f"row {rows} is of {path}")
                    rows += 1
        elapsed_s = time.monotonic() - since
    reading_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(
        f"{rows:,} rows in order, {rows / elapsed_s:,.0f} images/s with backend {options.backend}; "
        f"{peak_memory_bytes() / 2**20:,.0f} MiB at most, and "
        f"{reading_kib / 2**10:,.0f} MiB in the process that reads"
    )


if __name__ == "__main__":
    main()
