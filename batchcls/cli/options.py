"""Option types, and the options that several commands share."""

import math
import os
import re
from functools import partial
from pathlib import Path
from typing import Any

import click

from batchcls.storage.output_names import ROWS_PER_FILE, names_folder
from batchcls.storage.shards import Shard
from batchcls.storage.urls import is_url

_SIZE = re.compile(r"(\d{1,6}(?:\.\d{1,6})?) ?([KMGT])i?B?", re.IGNORECASE)
_UNITS = {"K": 10, "M": 20, "G": 30, "T": 40}
"""Powers of 2, by the letter of the unit."""

ENGINE = click.option(
    "--engine",
    type=click.Path(path_type=Path),
    envvar="BATCHCLS_ENGINE",
    help="Engine folder.  [default: $BATCHCLS_ENGINE, or else the only engine below ./engines]",
)
SPLIT_FOLDERS = click.option(
    "--split-folders",
    default="",
    metavar="PART=DIR,...",
    help="Folders that hold the class folders of a part, such as train=fold_0,train=fold_1,test=fold_2; others are "
    "left out. none: the folders themselves are the classes, whatever they are called.  [default: the folders called "
    "like train, val or test, if all are]",
)
LABELS_OF_PREDICTIONS = click.option(
    "--labels",
    metavar="FILE|A,B,...",
    help="Labels in the order of the column probabilities, or a file that lists the labels. Needed only for a "
    "predictions file that another program wrote again without that order.",
)
ROWS_OF_FILES = click.option(
    "--rows-per-file",
    type=click.IntRange(1, 10**9),
    metavar="N",
    is_eager=True,  # because --out names a folder with it
    help=f"Most rows of each file of the folder --out.  [default: {ROWS_PER_FILE:,} if --out is a folder]",
)
TRUTH = partial(
    click.option,
    "--truth",
    type=click.Path(exists=True, path_type=Path),
    help="True labels: a folder that holds a folder of images for each class, or a CSV or Parquet file with the "
    "columns path and label.",
)
"""The option ``--truth``, to be called with a command's own settings, such as ``required``."""


class FiniteRange(click.FloatRange):
    """A range of numbers that refuses NaN and infinity, which click's own range lets pass."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{number} is no finite number.", param, ctx)
        return number


class MemorySize(click.ParamType[int]):
    """A size in bytes, written as a number and a binary unit: ``1500M``, ``4G``, ``2.5 GiB``."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        size = _SIZE.fullmatch(str(value).strip())
        size_bytes = int(float(size[1]) * (1 << _UNITS[size[2].upper()])) if size else 0
        if not size_bytes:
            self.fail(f"{value!r} is no size; use a number and a unit, such as 4G or 1500M", param, ctx)
        return size_bytes


class ColumnNames(click.ParamType[tuple[str, ...]]):
    """Names of columns, with commas between them."""

    name = "columns"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        names = tuple(name.strip() for name in str(value).split(",")) if value else ()
        if "" in names:
            self.fail(f"{value!r} has a name that is empty; is a comma too many?", param, ctx)
        return names


class SlidesPlace(click.ParamType["str | Path"]):
    """A place of slides: the path of what exists; or as text a URL, ``-`` for standard input, and ``@FILE``."""

    name = "place"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> "str | Path":
        text = os.fsdecode(value)
        if text == "-" or text.startswith("@") or is_url(text):
            return text
        path = Path(text)
        if not os.path.lexists(text):
            self.fail(f"Path {text!r} does not exist.", param, ctx)
        return path


class PredictionsPlace(click.Path):
    """The path of a predictions file or folder, which exists; or a file's URL in an object store, which stays text."""

    def __init__(self) -> None:
        super().__init__(exists=True, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return str(value) if is_url(str(value)) else super().convert(value, param, ctx)


class OutPath(click.Path):
    """The path of an output, which refuses an empty name, and a name such as ``results/`` for a file.

    Args:
        takes_urls: Whether the URL of an object may be named, which stays text.
        takes_folders: Whether a folder may be named, whose files have the rows of the eager option ``--rows-per-file``,
            or else as many as `batchcls.storage.output_names.ROWS_PER_FILE` says.
    """

    def __init__(self, *, takes_urls: bool = False, takes_folders: bool = False, **settings: Any) -> None:
        super().__init__(**settings)
        self.takes_urls, self.takes_folders = takes_urls, takes_folders

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not str(value):
            self.fail("it is empty; is a variable of the shell not set?", param, ctx)
        # The option --shard, which is eager, makes this the folder of all shards' files.
        if ctx and isinstance(ctx.params.get("shard"), Shard):
            return str(value) if is_url(str(value)) else Path(str(value))
        rows = ctx.params.get("rows_per_file") if ctx else None
        if self.takes_folders and ctx and (isinstance(rows, int) or names_folder(str(value))):
            ctx.params["rows_per_file"] = rows if isinstance(rows, int) else ROWS_PER_FILE
            return str(value) if is_url(str(value)) else Path(str(value))
        if not self.dir_okay and str(value).endswith("/"):
            self.fail(f"{str(value)!r} names a folder; name a file in it", param, ctx)
        if is_url(str(value)):
            if not self.takes_urls:
                self.fail(f"{str(value)!r} is a URL; name a place on a disk", param, ctx)
            return str(value)
        return super().convert(value, param, ctx)


ROOT = click.option(
    "--root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Folder of the relative paths in lists and tables, and the only one that they may name files in.  [default: "
    "the folder that each list or table is in]",
)
ALLOW_REMOTE = click.option(
    "--allow-remote", is_flag=True, help="Let lists and tables name URLs (s3, gs, az, http, https) as well."
)
KEEP = click.option(
    "--keep",
    type=ColumnNames(),
    default="",
    metavar="COLUMN,...",
    help="Columns of a table that the predictions carry on, such as patient,slide.",
)


def check_device(device: str, *, several: bool = False) -> str:
    """``device``, if it is the name of a device; ``all`` only where a command takes several.

    Raises:
        BadParameter: If ``device`` is no such name.
    """
    if (device == "all" and several) or re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", device):
        return device
    raise click.BadParameter(f"{device!r} is not one of auto, cpu, cuda, cuda:N{', all' if several else ''}")


def check_cluster(cluster: str | None) -> str | None:
    """``cluster``, if it is the address of a Ray cluster; the address in RAY_ADDRESS for ``ray``, if there is one.

    Ray is told to send no reports of its use, and to print errors only.

    Raises:
        BadParameter: If ``cluster`` is no such address.
    """
    if cluster is None:
        return None
    os.environ.update({"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "error"})
    if cluster == "ray" and (named := os.environ.get("RAY_ADDRESS")) and named not in ("auto", "local"):
        cluster = named
    if cluster == "ray" or re.fullmatch(r"(ray://)?[^/@\s]+:\d{1,5}", cluster):
        return cluster
    raise click.BadParameter(f"{cluster!r} is not ray, HOST:PORT or ray://HOST:PORT")
