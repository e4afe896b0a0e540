"""The files of a comparison: results as JSON, and the changed rows as CSV."""

import os
from collections.abc import Sequence
from pathlib import Path

from batchcls.errors import OutputError
from batchcls.evaluation.comparison_rendering import changed_csv, comparison_json
from batchcls.evaluation.run_comparison import RunComparison
from batchcls.storage.atomic import check_replaceable_file, write_whole, writing


def check_comparison_files(
    out: Path | None, changed: Path | None, inputs: Sequence[Path | str], *, overwrite: bool
) -> None:
    """Refuse output files that exist, are one and the same, or are an input.

    Raises:
        OutputError: If a file may not be written.
    """
    for option, file in (("--out", out), ("--changed", changed)):
        if file is None:
            continue
        check_replaceable_file(file)
        if any(isinstance(place, Path) and os.path.exists(file) and file.samefile(place) for place in inputs):
            raise OutputError(f"{option} {str(file)!r} is a predictions file that is compared; choose another")
        if os.path.exists(file) and not overwrite:
            raise OutputError(f"{str(file)!r} exists; choose another {option}, or replace it with --overwrite")
    if out is not None and changed is not None and os.path.abspath(out) == os.path.abspath(changed):
        raise OutputError(f"--out and --changed are both {str(out)!r}; choose two files")


def write_comparison_files(comparison: RunComparison, out: Path | None, changed: Path | None) -> None:
    """Write each file that is named, whole or not at all.

    Raises:
        OutputError: If a file cannot be written.
    """
    contents: list[tuple[Path, bytes]] = []
    if changed is not None:
        contents.append((changed, changed_csv(comparison.same)))
    if out is not None:
        contents.append((out, comparison_json(comparison)))
    for file, content in contents:
        with writing(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(file, content)
