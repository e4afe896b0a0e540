"""Runs over a file system that never answers for some files, or for a folder: `python -m tests.faults.hanging`.

Needs FUSE (/dev/fuse, and Debian's `fuse`) and PyPI's fusepy: a thread that reads there cannot be ended by any signal.
"""

import argparse
import errno
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.ipc
import pyarrow.parquet as pq

from tests.conftest import ALL4, draw
from tests.faults.machine_line import machine_line

SOUND = 60
KINDS = ("hang", "eio", "slow")


def serve(mount: str, image: Path, kinds: tuple[str, ...]) -> None:
    """The file system: sound files, one of each of ``kinds``, and a folder whose listing hangs if it is one."""
    from fuse import FUSE, FuseOSError, Operations

    data = image.read_bytes()
    names = [f"ok{number:02d}.jpg" for number in range(SOUND)] + [f"{kind}.jpg" for kind in kinds if kind != "folder"]
    folders = ["folder"] if "folder" in kinds else []

    class Failing(Operations):  # type: ignore[misc]
        def getattr(self, path: str, handle: int | None = None) -> dict[str, int]:
            if path.strip("/") in ["", *folders]:
                return {"st_mode": stat.S_IFDIR | 0o755, "st_nlink": 2}
            if path.strip("/") in names:
                return {"st_mode": stat.S_IFREG | 0o644, "st_nlink": 1, "st_size": len(data)}
            raise FuseOSError(errno.ENOENT)

        def readdir(self, path: str, handle: int) -> list[str]:
            if path.strip("/"):
                time.sleep(100_000)
            return [".", "..", *folders, *names]

        def read(self, path: str, size: int, offset: int, handle: int) -> bytes:
            kind = path.strip("/").removesuffix(".jpg")
            time.sleep({"hang": 100_000, "slow": 3}.get(kind, 0))
            if kind == "eio":
                raise FuseOSError(errno.EIO)
            return data[offset : offset + size]

    FUSE(Failing(), mount, foreground=True, nothreads=False, direct_io=True)


@contextmanager
def mounted(folder: Path, image: Path, kinds: tuple[str, ...]) -> Iterator[Path]:
    folder.mkdir(exist_ok=True)
    arguments = [sys.executable, "-m", "tests.faults.hanging", "--serve", str(folder), str(image), *kinds]
    server = subprocess.Popen(arguments)
    while not os.path.ismount(folder):
        time.sleep(0.05)
        if server.poll() is not None:
            raise SystemExit("nothing could be mounted: pip install fusepy, apt-get install fuse, and be root")
    try:
        yield folder
    finally:
        server.kill()
        server.wait()
        subprocess.run(["umount", "-l", folder], check=True)


def started(slides: Path, out: Path, *options: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "batchcls", "run", slides, "--out", out, "--engine", ALL4, *options]
    return subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished_with(slides: Path, out: Path) -> int:
    process = started(slides, out)
    process.communicate()
    return process.returncode


def rows_on_disk(out: Path) -> int:
    parts = out.with_name(out.name + ".partial").glob("part-*.arrow")
    return sum(len(pyarrow.ipc.open_file(part.read_bytes()).read_all()) for part in parts)


def stopped(slides: Path, out: Path, number: signal.Signals, rows: int) -> str:
    """What a run says that is stopped once ``rows`` rows are on disk and it has said what it waits for."""
    process, since = started(slides, out), time.monotonic()
    assert process.stderr is not None
    said = ""
    while "waiting for" not in said or rows_on_disk(out) < rows:
        said += process.stderr.readline()
    waited_s = time.monotonic() - since
    process.send_signal(number)
    since = time.monotonic()
    last = process.communicate(timeout=60)[1].splitlines()[-1]
    return (
        f"{number.name:8} {rows_on_disk(out)} rows on disk after {waited_s:.0f} s, told of the wait: "
        f"{'hang' in said or 'folder' in said}; ended with {process.returncode} {time.monotonic() - since:.2f} s after "
        f"the signal: {last}"
    )


def main() -> None:
    """Print what came of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", nargs="+", default=[])
    served: Any = parser.parse_args().serve
    if served:
        serve(served[0], Path(served[1]), tuple(served[2:]))
        return
    print(machine_line())
    with tempfile.TemporaryDirectory() as scratch_name:
        scratch = Path(scratch_name)
        image, slides = draw(scratch / "image.jpg", 1, (400, 300)), scratch / "slides"
        with mounted(slides, image, KINDS):
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                print(stopped(slides, scratch / f"{number.name}.parquet", number, SOUND + len(KINDS) - 1))
            process = started(slides, scratch / "o.parquet", "--read-timeout", "8")
            process.communicate()
            errors = {row["path"]: row["error"] for row in pq.read_table(scratch / "o.parquet").to_pylist()}
            print(
                f"--read-timeout 8: exit {process.returncode}, {len(errors)} rows: "
                f"{ {path: error for path, error in errors.items() if error} }"
            )
        with mounted(slides, image, ("folder",)):
            print("a folder that is never listed:")
            print(stopped(slides, scratch / "folder.parquet", signal.SIGINT, SOUND))
        for path in slides.iterdir():
            path.unlink()
        for name in [f"ok{number:02d}.jpg" for number in range(SOUND)] + [f"{kind}.jpg" for kind in KINDS]:
            (slides / name).write_bytes(image.read_bytes())
        outs = [scratch / name for name in ("whole.parquet", "SIGINT.parquet", "o.parquet")]
        codes = [finished_with(slides, out) for out in outs]
        whole, *others = [pq.read_table(out).drop_columns(["size_bytes", "modified"]) for out in outs]
        equal = [other.equals(whole) for other in others]
        print(
            f"the same commands once all is well: exit {codes}, {len(whole)} rows, equal to those of a new run: {equal}"
        )


if __name__ == "__main__":
    main()
