"""Option types, and the options that several commands share."""

import math
import os
import re
from functools import partial
from pathlib import Path
from typing import Any

import click

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
    """The path of a predictions file, which exists; or its URL in an object store, which stays text."""

    def __init__(self) -> None:
        super().__init__(exists=True, dir_okay=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return str(value) if is_url(str(value)) else super().convert(value, param, ctx)


class OutPath(click.Path):
    """The path of an output, which refuses an empty name, and a name such as ``results/`` for a file.

    Args:
        takes_urls: Whether the URL of an object may be named, which stays text.
    """

    def __init__(self, *, takes_urls: bool = False, **settings: Any) -> None:
        super().__init__(**settings)
        self.takes_urls = takes_urls

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not str(value):
            self.fail("it is empty; is a variable of the shell not set?", param, ctx)
        # The option --shard, which is eager, makes this the folder of all shards' files.
        if ctx and isinstance(ctx.params.get("shard"), Shard):
            return str(value) if is_url(str(value)) else Path(str(value))
        if not self.dir_okay and str(value).endswith("/"):
            self.fail(f"{str(value)!r} names a folder; name a file in it", param, ctx)
        if is_url(str(value)):
            if not self.takes_urls:
                self.fail(f"{str(value)!r} is a URL; name a place on a disk", param, ctx)
            return str(value)
        return super().convert(value, param, ctx)


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

    Raises:
        BadParameter: If ``cluster`` is no such address.
    """
    if cluster == "ray":
        cluster = os.environ.get("RAY_ADDRESS") or cluster
        cluster = "ray" if cluster in ("auto", "local") else cluster
    if cluster is None or cluster == "ray" or re.fullmatch(r"(ray://)?[^/@\s]+:\d{1,5}", cluster):
        return cluster
    raise click.BadParameter(f"{cluster!r} is not ray, HOST:PORT or ray://HOST:PORT")
