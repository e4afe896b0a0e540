"""Regular files, opened and read up to a limit; FIFOs and devices, which could block or never end, are refused."""

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

from batchcls.storage.confined_files import open_confined


class IrregularError(ValueError):
    """A folder, a FIFO or a device, where a regular file is needed."""


def open_regular(path: str | Path) -> tuple[io.FileIO, os.stat_result]:
    """A regular file, opened for reading, and its status; the caller closes the file.

    Raises:
        OSError: If the file cannot be opened.
        IrregularError: If ``path`` is a folder, a FIFO or a device.
    """
    descriptor = open_confined(os.fspath(path), os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode):
        return io.FileIO(descriptor, "rb"), status
    os.close(descriptor)
    raise IrregularError("it is no regular file")


def read_up_to(stream: io.FileIO, size: int) -> bytes:
    """The next ``size`` bytes of a file; fewer if it ends before."""
    data = stream.read(size) or b""
    while len(data) < size and (more := stream.read(size - len(data))):  # one call reads 2 GiB at most
        data += more
    return data


def check_regular(path: Path) -> None:
    """Refuse a path that is no regular file, so that no library waits at a FIFO.

    Raises:
        OSError: If the file cannot be opened.
        IrregularError: If ``path`` is a folder, a FIFO or a device.
    """
    stream, _ = open_regular(path)
    stream.close()


@contextmanager
def readable_name(path: Path) -> Iterator[str]:
    """A context that yields a short name of a regular file, for libraries that take only short names in UTF-8.

    Raises:
        OSError: If the file cannot be opened.
        IrregularError: If ``path`` is a folder, a FIFO or a device.
    """
    stream, _ = open_regular(path)
    with stream:
        yield f"/proc/self/fd/{stream.fileno()}"


def read_bytes(path: Path, largest_bytes: int) -> bytes:
    """The content of a small file.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If ``path`` is no regular file, or has more than ``largest_bytes``.
    """
    stream, status = open_regular(path)
    with stream:
        if status.st_size > largest_bytes:
            raise ValueError(f"it has {status.st_size:,} bytes, of {largest_bytes:,} at most")
        return read_up_to(stream, status.st_size)


def read_text(path: Path, largest_bytes: int, encoding: str = "utf-8") -> str:
    """The text of a small file, with line feeds at the ends of its lines.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If ``path`` is no regular file, has more than ``largest_bytes``, or is not in ``encoding``.
    """
    text = read_bytes(path, largest_bytes).decode(encoding)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: Path, largest_bytes: int) -> Any:
    """The value in a small JSON file: finite numbers, whole characters, and each name of an object once.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If ``path`` is no regular file, has more than ``largest_bytes``, is not UTF-8, holds anything else,
            or is nested too deep.
    """
    text = read_text(path, largest_bytes)
    try:
        values = json.loads(
            text,
            object_pairs_hook=object_with_distinct_names,
            parse_constant=_refuse_constant,
            parse_float=_finite_number,
        )
        json.dumps(values, ensure_ascii=False).encode()  # refuses lone surrogates, which no column could hold
        return values
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def object_with_distinct_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object from its names and values.

    Raises:
        ValueError: If two values have the same name, for one of them would be lost.
    """
    values = dict(pairs)
    if len(values) < len(pairs):
        twice = [name for name, times in Counter(name for name, _ in pairs).items() if times > 1]
        raise ValueError(f"it names {', '.join(map(repr, twice[:4]))} more than once")
    return values


def _finite_number(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text[:20]} is beyond all numbers that can be stored")
    return number


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is no number")
