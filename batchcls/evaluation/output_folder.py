"""The output folder of an evaluation, in which files are replaced only if the user asks for it."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from batchcls.errors import OutputError
from batchcls.storage.atomic import kind_of, writing
from batchcls.storage.owned_folder import OwnedFolder

FILES = (
    *(
        "confusion.png",
        "calibration.png",
        "risk_coverage.png",
        "wrong.jpg",
        "uncertain.jpg",
        "label_issues.jpg",
        "novel.jpg",
    ),
    *("wrong.csv", "label_issues.csv", "report.html", "report.md", "metrics.json"),
)
"""Names of all files that an evaluation writes."""

WriteFiles = Callable[[Mapping[str, bytes | None]], None]
"""Function that writes files, given their content by name; None as content removes an earlier file of that name."""


def check_evaluation_folder(out: Path, inputs: Sequence[Path], *, overwrite: bool) -> None:
    """Refuse a folder in which an input would be replaced, or an earlier evaluation without the user's consent.

    Args:
        out: Output folder; may be missing.
        inputs: Files that the evaluation reads.
        overwrite: Whether the user asked to replace an earlier evaluation.

    Raises:
        OutputError: If one of `FILES` in ``out`` is one of ``inputs``, or exists and ``overwrite`` is false.
    """
    existing = [path for name in FILES if os.path.lexists(path := out / name)]
    for path in inputs:
        if any(file.exists() and path.samefile(file) for file in existing):
            raise OutputError(f"--out {str(out)!r} would replace {str(path)!r} itself; choose another --out")
    if existing and not overwrite:
        raise OutputError(f"{str(existing[0])!r} exists; choose another --out, or replace it with --overwrite")


@contextmanager
def open_evaluation_folder(out: Path) -> Iterator[WriteFiles]:
    """A context that yields the function that writes files into ``out``, each whole, in the given order.

    A folder that was created for the evaluation is removed again if nothing is written.

    Raises:
        OutputError: If the files cannot be written, or one of `FILES` in ``out`` is no file.
    """
    with writing(out):
        is_new = kind_of(out) is None
        folder = OwnedFolder.made(out)
    try:
        with folder:
            for name in FILES:
                folder.check_file(name)
            yield lambda files: _write(folder, files)
    finally:
        if is_new:
            with suppress(OSError):  # after a success the folder is not empty, and stays
                os.rmdir(out)


def _write(folder: OwnedFolder, files: Mapping[str, bytes | None]) -> None:
    with writing(folder.path):
        for name, content in files.items():
            if content is None:
                folder.remove(name)
            else:
                folder.write(name, content)
