"""`batchcls explain` as a user calls it, and what it leaves."""

import csv
from pathlib import Path

from click.testing import CliRunner, Result

from batchcls.cli import main


def explain(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["explain", *map(str, arguments)])


def table(out: Path) -> list[dict[str, str]]:
    with (out / "explained.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def file_names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}
