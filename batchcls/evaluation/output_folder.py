"""The folder that an evaluation is written to; nothing in it is replaced unasked."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from batchcls.errors import OutputError
from batchcls.storage.atomic import kind_of, writing
from batchcls.storage.own_folder import OwnFolder

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
        OutputError: If the disk refuses, or something there is not ours.
    """
    with writing(out):
        fresh = kind_of(out) is None
        own = OwnFolder.made(out)
    try:
        with own:
            for name in FILES:
                own.check_file(name)
            yield lambda files: _write(own, files)
    finally:
        if fresh:
            with suppress(OSError):  # it is not empty: all went well
                os.rmdir(out)


def _write(own: OwnFolder, files: Mapping[str, bytes | None]) -> None:
    with writing(own.path):
        for name, content in files.items():
            if content is None:
                own.remove(name)
            else:
                own.write(name, content)
