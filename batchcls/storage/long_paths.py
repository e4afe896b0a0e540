"""Files and folders below paths that are longer than the kernel takes at once."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

_LONGEST_BYTES = 4095
"""Longest path in one system call of Linux; a name of more than 255 bytes is refused wherever it stands."""


def open_file(path: str | os.PathLike[str], flags: int) -> int:
    """An open descriptor of a file or folder, as by `os.open`, however long its path is; the caller closes it.

    Raises:
        OSError: If `os.open` raises it.
    """
    return _call_below(path, lambda name, folder: os.open(name, flags | os.O_CLOEXEC, dir_fd=folder))


def status(path: str | os.PathLike[str]) -> os.stat_result:
    """The status of a file, as by `os.stat`, however long its path is; links are followed.

    Raises:
        OSError: If `os.stat` raises it.
    """
    return _call_below(path, lambda name, folder: os.stat(name, dir_fd=folder))


@contextmanager
def scanned_folder(folder: str | os.PathLike[str]) -> Iterator[Iterator[os.DirEntry[str]]]:
    """A context that yields the entries of a folder, as by `os.scandir`, however long its path is.

    The ``path`` of an entry is its name alone.

    Raises:
        OSError: If the folder cannot be opened or listed.
    """
    descriptor = open_file(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with os.scandir(descriptor) as entries:
            yield entries
    finally:
        os.close(descriptor)


def _call_below(path: str | os.PathLike[str], call: Callable[[str | os.PathLike[str] | bytes, int | None], T]) -> T:
    """The result of ``call`` with a path and the descriptor of the folder that the path is relative to.

    ``call`` gets ``path`` and None, unless ``path`` is too long for one system call; then it gets the last piece of
    ``path``, and the folder that the pieces before lead to.
    """
    try:
        return call(path, None)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
    *folders, last = _pieces(os.fsencode(path))
    handle: int | None = None
    try:
        for folder in folders:
            inner = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=handle)
            _close(handle)
            handle = inner
        return call(last, handle)
    except OSError as error:  # raised again with the whole path in place of the piece
        raise OSError(error.errno, error.strerror, os.fspath(path)) from None
    finally:
        _close(handle)


def _pieces(path: bytes) -> list[bytes]:
    """``path`` cut at slashes into pieces that one system call takes, each relative to the one before."""
    pieces = []
    while len(path) > _LONGEST_BYTES and (cut := path.rfind(b"/", 1, _LONGEST_BYTES + 1)) > 0:
        pieces.append(path[:cut])
        path = path[cut:].lstrip(b"/")
    return [*pieces, path or b"."]


def _close(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)
