"""Shards of one job, which many machines share out, and the files that they write."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from batchcls.errors import OutputError, SlidesError
from batchcls.storage.file_or_object import is_object

MOST_SHARDS = 100_000
_FILE = re.compile(r"shard-(\d{5,6})-of-(\d{5,6})\.parquet", re.ASCII)
_FILE_LIKE = re.compile(r"shard-[^-]*-of-.*\.parquet")
_LEAST_DIGITS = 5


@dataclass(frozen=True, slots=True)
class Shard:
    """One of ``count`` parts of a job.

    Raises:
        SlidesError: If there is no such part.
    """

    index: int
    """Number of the part, counted from 0."""
    count: int
    """Number of parts."""

    def __post_init__(self) -> None:
        for number in (self.index, self.count):
            if not isinstance(number, int) or isinstance(number, bool):
                raise SlidesError(f"shard is {(self.index, self.count)!r}; use two whole numbers, such as (17, 1000)")
        if not 1 <= self.count <= MOST_SHARDS:
            raise SlidesError(f"{self} was asked for; the number of shards is from 1 to {MOST_SHARDS:,}")
        if not 0 <= self.index < self.count:
            raise SlidesError(f"{self} was asked for; shards count from 0, so the last one is {self.count - 1}")

    def __str__(self) -> str:
        return f"shard {self.index}/{self.count}"

    @property
    def file_name(self) -> str:
        """Name of the file that the shard's rows are in."""
        digits = max(_LEAST_DIGITS, len(str(self.count)))
        return f"shard-{self.index:0{digits}}-of-{self.count:0{digits}}.parquet"


def is_like_shard_file(name: str) -> bool:
    """Whether a name is that of a shard's file, or could be taken for one."""
    return _FILE_LIKE.fullmatch(name) is not None


def shard_of_file(name: str) -> Shard | None:
    """The shard whose file has a name; None if it is no name of a shard's file."""
    match = _FILE.fullmatch(name)
    try:
        shard = match and Shard(int(match[1]), int(match[2]))
    except SlidesError:
        return None
    return shard if shard and shard.file_name == name else None


def shard_file(folder: Path | str, shard: Shard) -> Path | str:
    """The path of a shard's file in ``folder``, which is made if it is missing; or its URL, of a folder's URL.

    Raises:
        OutputError: If ``folder`` is no folder, cannot be made, or holds shards of another number.
    """
    stem, ending = os.path.splitext(str(folder).rstrip("/"))
    if ending.lower() in (".parquet", ".csv", ".jsonl") and not os.path.isdir(folder):
        raise OutputError(
            f"--out {str(folder)!r} has the ending of a file; with --shard it is the folder of all shards' files: name "
            f"it {stem!r}"
        )
    if isinstance(folder, str) and is_object(folder):
        from batchcls.storage.object_url import names_below  # obstore is an extra

        _check_count(names_below(folder), folder, shard)
        return f"{folder.rstrip('/')}/{shard.file_name}"
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = os.listdir(folder)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"--out {str(folder)!r} cannot be used as a folder: {reason}; choose another --out"
        ) from error
    _check_count(names, folder, shard)
    return folder / shard.file_name


def _check_count(names: Iterable[str], folder: Path | str, shard: Shard) -> None:
    """Refuse a folder that holds shards of another number.

    Raises:
        OutputError: If it does.
    """
    for name in names:
        other = shard_of_file(name.removesuffix(".partial"))
        if other and other.count != shard.count:
            raise OutputError(
                f"{shard} was asked for, and {str(folder)!r} holds {name!r}, one of {other.count}: name the same "
                f"number of shards (--shard K/{other.count}, --shard auto/{other.count}), or choose another --out"
            )


def index_ranges(indexes: Iterable[int]) -> str:
    """Numbers as schedulers of arrays take them: ``3,7-9``."""
    ranges: list[list[int]] = []
    for index in sorted(set(indexes)):
        if ranges and index == ranges[-1][1] + 1:
            ranges[-1][1] = index
        else:
            ranges.append([index, index])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)
