"""Which files take longest to decode: `python -m tests.faults.slowest FOLDER...`.

Every file below the folders is decoded alone, one after the other, in one process for each decoder; files of any name
are taken. Wall and CPU seconds include those of the process that reads, which is started anew for each. Ends with 1 if
a file takes over half a minute of CPU, or has no row.
"""

import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from batchcls.images.decoders import DecoderName, open_decoder
from batchcls.images.decoders.base import DecoderOptions
from batchcls.networks.preprocess import Preprocess
from batchcls.records import Batch, Slide
from tests.faults.machine_line import machine_line

DECODERS: tuple[DecoderName, ...] = ("turbo", "pillow")
LIMIT_S = 30.0
SHOWN = 10
MEMORY_BYTES = 6 << 30
"""Enough for any file that `--max-pixels` lets through, however little the machine has left just now."""


@dataclass(frozen=True, slots=True)
class Decoded:
    name: str
    wall_s: float
    cpu_s: float
    row: str
    """``pixels``, or the kind of error and its reason."""

    def __str__(self) -> str:
        return f"{self.wall_s:8.2f} {self.cpu_s:8.2f}  {self.name}: {self.row[:90]}"


def decode_all(decoder_name: DecoderName, folders: list[Path]) -> int:
    """Decode every file, print the slowest; 1 if one is too slow or without a row."""
    decoder = open_decoder(
        decoder_name,
        Preprocess(),
        DecoderOptions(batch_size=8, threads=1, max_pixels=200_000_000, memory_bytes=MEMORY_BYTES),
    )
    results = []
    for folder in folders:
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            slide = Slide(str(folder), str(file.relative_to(folder)))
            before, since = _cpu_s(), time.monotonic()
            rows = [row for batch in decoder.decode([slide]) for row in _rows(batch)]
            wall_s = time.monotonic() - since
            name = f"{folder.name}/{slide.path}".encode(errors="backslashreplace").decode()
            results.append(Decoded(name, wall_s, _cpu_s() - before, ", ".join(rows)))
            if len(rows) != 1:
                print(f"{name} has {len(rows)} rows")
    decoder.close()
    results.sort(key=lambda result: -result.wall_s)
    print(f"--decoder {decoder_name}: {len(results)} files, {_counted(results)}")
    print(f"{'wall s':>8} {'CPU s':>8}", *results[:SHOWN], sep="\n")
    print(f"{sum(r.wall_s for r in results):8.2f} {sum(r.cpu_s for r in results):8.2f}  in all", flush=True)
    return int(any(result.cpu_s > LIMIT_S or not result.row for result in results))


def _rows(batch: Batch) -> list[str]:
    failures = [failure.text for failure in batch.failures]
    postponed = ["postponed" for _ in batch.postponed]
    return ["pixels" for _ in batch.slides] + failures + postponed


def _cpu_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _counted(results: list[Decoded]) -> str:
    counts = Counter(result.row.split(":")[0] for result in results)
    return ", ".join(f"{kind} {count}" for kind, count in counts.most_common())


def main(folders: list[str]) -> int:
    print(machine_line(), flush=True)
    program = "import sys; from pathlib import Path; from tests.faults.slowest import decode_all; "
    program += "sys.exit(decode_all(sys.argv[1], [Path(folder) for folder in sys.argv[2:]]))"
    codes = [
        subprocess.run(
            [sys.executable, "-c", program, name, *folders], stderr=subprocess.DEVNULL, check=False
        ).returncode
        for name in DECODERS
    ]
    print("exit", *codes)
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
