"""Files that are written whole or not at all, and never through a link."""

import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from batchcls.errors import OutputError

TEMPORARY = re.compile(r"\.batchcls-[0-9a-f]{16}")
"""Names of files that are still being written; a killed process may leave one behind."""
_SAFE_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""Flags of `os.open` for not following a link, and not waiting for a pipe that nobody writes to."""
_KINDS = {stat.S_IFLNK: "a symbolic link", stat.S_IFDIR: "a folder", stat.S_IFREG: "a file"}


def temporary_name() -> str:
    """A name that no file has yet, short enough for any file system."""
    return f".batchcls-{secrets.token_hex(8)}"


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """A context in which an OSError becomes an `OutputError` that names ``out``."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"cannot write {str(out)!r}: {reason}; choose another --out") from error


@contextmanager
def folder_handle(path: Path) -> Iterator[int]:
    """A context that yields an open descriptor of a folder, which may be reached through links."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield handle
    finally:
        os.close(handle)


def kind_of(name: str | Path, folder: int | None = None) -> str | None:
    """The kind of file under a name, in words such as ``a folder``; None if there is none. A link is not followed.

    Args:
        folder: Descriptor of the folder that ``name`` is in.
    """
    try:
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    return _KINDS.get(stat.S_IFMT(mode), "no file")


def check_replaceable_file(path: Path, folder: int | None = None) -> None:
    """Refuse to replace anything but a regular file; a path where nothing stands is fine.

    Args:
        folder: Descriptor of the folder that ``path.name`` is in; with it, ``path`` serves for the message alone.

    Raises:
        OutputError: If ``path`` is a link, a folder, a pipe or a device, or its kind cannot be determined.
    """
    with writing(path):
        kind = kind_of(path if folder is None else path.name, folder)
    if kind not in (None, "a file"):
        raise OutputError(f"{str(path)!r} is {kind}, which is not replaced; move it away, or choose another --out")


def open_regular_file(path: str | Path, folder: int | None = None) -> int:
    """An open descriptor for reading a regular file; the caller closes it.

    Args:
        folder: Descriptor of the folder that ``path`` is relative to; None: the current folder.

    Raises:
        OSError: If ``path`` is a link, a pipe or a device, or cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | _SAFE_FLAGS, dir_fd=folder)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError("it is no file")


def create_file(name: str, folder: int) -> int:
    """An open descriptor for writing a new file; the caller closes it.

    Args:
        folder: Descriptor of the folder in which the file is created.

    Raises:
        OSError: If a file of that name exists.
    """
    return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _SAFE_FLAGS, 0o666, dir_fd=folder)


@contextmanager
def whole_file_in(folder: int, path: Path) -> Iterator[BinaryIO]:
    """A context that yields a stream, whose content becomes the file ``path.name`` of a folder if no error is raised.

    Args:
        folder: Descriptor of the folder.
        path: The whole path, for messages.

    Raises:
        OutputError: If something other than a regular file has that path.
        OSError: If the file cannot be written.
    """
    check_replaceable_file(path, folder)
    unfinished = temporary_name()
    descriptor = create_file(unfinished, folder)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.rename(unfinished, path.name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(OSError):
            os.unlink(unfinished, dir_fd=folder)
        raise
    os.fsync(folder)


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A context that yields a stream, whose content becomes the file ``path`` if no error is raised.

    Raises:
        OutputError: If something other than a regular file has that path.
        OSError: If the file cannot be written.
    """
    with folder_handle(path.parent) as folder, whole_file_in(folder, path) as stream:
        yield stream


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole; if an error is raised, the earlier file remains unchanged.

    Raises:
        OutputError: If something other than a regular file has that path.
        OSError: If the file cannot be written.
    """
    with whole_file(path) as stream:
        stream.write(content)
