"""Regular files alone, and no more of them than is allowed: nobody waits for a FIFO, or reads a device to its end."""

import io
import json
import math
import os
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from batchcls.storage.deep_paths import open_file


class IrregularError(ValueError):
    """What stands under a file's name is something else."""


def open_regular(path: str | Path) -> tuple[io.FileIO, os.stat_result]:
    """A file, opened for reading, and its status.

    Raises:
        OSError: If it cannot be opened.
        IrregularError: If it is a folder, a FIFO or a device.
    """
    descriptor = open_file(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode):
        return io.FileIO(descriptor, "rb"), status
    os.close(descriptor)
    raise IrregularError("it is no regular file")


def read_fully(stream: io.FileIO, size: int) -> bytes:
    """Up to ``size`` bytes; fewer if the file has shrunk meanwhile."""
    data = stream.read(size) or b""
    while len(data) < size and (more := stream.read(size - len(data))):  # one call reads 2 GiB at most
        data += more
    return data


def check_regular(path: Path) -> None:
    """Refuse what a library would wait for.

    Raises:
        OSError: If it cannot be opened.
        IrregularError: If it is a folder, a FIFO or a device.
    """
    stream, _ = open_regular(path)
    stream.close()


@contextmanager
def readable_name(path: Path) -> Iterator[str]:
    """A name of a regular file for libraries that take only short ones in UTF-8; it holds while the context does.

    Raises:
        OSError: If it cannot be opened.
        IrregularError: If it is a folder, a FIFO or a device.
    """
    stream, _ = open_regular(path)
    with stream:
        yield f"/proc/self/fd/{stream.fileno()}"


def read_text(path: Path, largest_bytes: int, encoding: str = "utf-8") -> str:
    """The text of a small file, its lines ended by line feeds.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is no regular file, is larger, or is not in ``encoding``.
    """
    stream, status = open_regular(path)
    with stream:
        if status.st_size > largest_bytes:
            raise ValueError(f"it has {status.st_size:,} bytes, of {largest_bytes:,} at most")
        text = read_fully(stream, status.st_size).decode(encoding)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: Path, largest_bytes: int) -> Any:
    """What a small JSON file holds: finite numbers, whole characters, and each name of an object once.

    Raises:
        OSError: If it cannot be read.
        ValueError: As by `read_text`; or if it holds something else, or is nested too deep.
    """
    text = read_text(path, largest_bytes)
    try:
        values = json.loads(text, object_pairs_hook=distinct, parse_constant=_refused, parse_float=_finite)
        json.dumps(values, ensure_ascii=False).encode()  # refuses halves of characters, which no column could hold
        return values
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these names and values.

    Raises:
        ValueError: If a name stands twice, of which one would be lost.
    """
    values = dict(pairs)
    if len(values) < len(pairs):
        twice = [name for name, times in Counter(name for name, _ in pairs).items() if times > 1]
        raise ValueError(f"it names {', '.join(map(repr, twice[:4]))} more than once")
    return values


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text[:20]} is beyond all numbers that can be stored")
    return number


def _refused(text: str) -> Any:
    raise ValueError(f"{text} is no number")
