"""Option types, and the options that several commands share."""

import math
import os
import re
from functools import partial
from pathlib import Path
from typing import Any

import click

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


class OutPath(click.Path):
    """The path of an output, which refuses an empty name, and a name such as ``results/`` for a file."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not str(value):
            self.fail("it is empty; is a variable of the shell not set?", param, ctx)
        if not self.dir_okay and str(value).endswith("/"):
            self.fail(f"{str(value)!r} names a folder; name a file in it", param, ctx)
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
