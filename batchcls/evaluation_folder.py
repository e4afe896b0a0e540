"""The folder that an evaluation is written to; nothing in it is replaced unasked."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from batchcls.errors import OutputError, writing

FILES = (
    *("confusion.png", "calibration.png", "risk_coverage.png", "wrong.jpg", "uncertain.jpg"),
    *("wrong.csv", "report.html", "report.md", "metrics.json"),
)

Write = Callable[[Mapping[str, bytes | None]], None]


def check_out(out: Path, inputs: Sequence[Path], *, overwrite: bool) -> None:
    """Refuse to replace what was given, or what is there already.

    Raises:
        OutputError: If `FILES` below ``out`` hold one of ``inputs``, or are there and not to be overwritten.
    """
    there = [path for name in FILES if os.path.lexists(path := out / name)]
    for path in inputs:
        if any(file.exists() and path.samefile(file) for file in there):
            raise OutputError(f"--out {str(out)!r} would replace {str(path)!r} itself; choose another --out")
    if there and not overwrite:
        raise OutputError(f"{str(there[0])!r} exists; choose another --out, or replace it with --overwrite")


@contextmanager
def evaluation_folder(out: Path) -> Iterator[Write]:
    """Writes files below ``out``, each whole, in their order; of a name without content an earlier file is removed.

    Raises:
        OutputError: If the disk refuses.
    """
    with writing(out):
        fresh = not out.exists()
        out.mkdir(parents=True, exist_ok=True)
    try:
        yield lambda files: _write(out, files)
    finally:
        if fresh:
            with suppress(OSError):  # it is not empty: all went well
                out.rmdir()


def _write(out: Path, files: Mapping[str, bytes | None]) -> None:
    with writing(out):
        for name, content in files.items():
            if content is None:
                (out / name).unlink(missing_ok=True)
                continue
            unfinished = out / f".{name}.{os.getpid()}.tmp"
            try:
                unfinished.write_bytes(content)
                unfinished.replace(out / name)
            finally:
                unfinished.unlink(missing_ok=True)
