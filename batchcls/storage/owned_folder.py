"""A folder of this user, held by a descriptor, so that nothing else is touched if its path comes to name another."""

import errno
import os
import re
from collections.abc import Callable, Container
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import BinaryIO, Self

from batchcls.errors import OutputError
from batchcls.storage.atomic import (
    TEMPORARY,
    check_replaceable_file,
    create_file,
    folder_handle,
    kind_of,
    open_regular_file,
    temporary_name,
    whole_file_in,
)

_OPEN_ELSEWHERE = re.compile(r"\.nfs[0-9a-f]+")
"""Names that NFS gives to removed files that are still open."""


class OwnedFolder:
    """An existing folder that is no link, and that has the same owner as the files that this process creates in it.

    On a network disk that owner may be another than this process's user, so a file is created in the folder, and
    removed again, to learn its owner.

    Raises:
        OutputError: If the path is a link, is no folder, or belongs to another user.
        OSError: If the folder cannot be opened, or no file can be created in it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            raise OutputError(
                f"{str(path)!r} is {kind_of(path)}, where a folder of our own is needed; move it away, or choose "
                "another --out"
            ) from error
        try:
            self._check_owner()
        except BaseException:
            self.close()
            raise

    @classmethod
    def made(cls, path: Path, mode: int = 0o777) -> Self:
        """The folder at ``path``, made with its parents if it does not exist."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            os.mkdir(path, mode)
        return cls(path)

    def close(self) -> None:
        os.close(self._handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def in_place(self) -> bool:
        """Whether the folder's path still names it."""
        try:
            return os.path.samestat(os.lstat(self.path), os.fstat(self._handle))
        except FileNotFoundError:
            return False

    def names(self) -> list[str]:
        """Sorted names of the files and folders in the folder, without temporary files."""
        names = sorted(os.listdir(self._handle))
        return [name for name in names if not TEMPORARY.fullmatch(name) and not _OPEN_ELSEWHERE.fullmatch(name)]

    def holds(self, name: str) -> bool:
        """Whether anything in the folder is called ``name``."""
        return kind_of(name, self._handle) is not None

    def check_names(self, is_own_name: Callable[[str], object], folders: Container[str] = ()) -> None:
        """Refuse a folder that holds anything that batchcls did not create.

        Args:
            is_own_name: Says whether batchcls creates files of a name in the folder.
            folders: Names of the folders that batchcls creates in the folder.

        Raises:
            OutputError: If there is anything else.
        """
        for name in self.names():
            kind = kind_of(name, self._handle)
            is_own = name in folders if kind == "a folder" else kind in ("a file", None) and is_own_name(name)
            if kind is not None and not is_own:
                raise OutputError(
                    f"{str(self.path / name)!r} is {kind} that batchcls did not make; nothing was touched: move it "
                    "away, or choose another --out"
                )

    def check_file(self, name: str) -> None:
        """Refuse a name that something other than a regular file has; no file may have the name.

        Raises:
            OutputError: If a link, a folder, a pipe or a device has the name.
        """
        check_replaceable_file(self.path / name, self._handle)

    def file(self, name: str) -> int:
        """An open descriptor for reading a file of the folder; the caller closes it.

        Raises:
            OSError: If the file cannot be opened, or is a link, a pipe or a device.
        """
        return open_regular_file(name, self._handle)

    def lock_file(self, name: str) -> int:
        """An open descriptor of a file that serves as a lock, created if it does not exist; the caller closes it.

        Raises:
            OutputError: If something other than a regular file has the name.
        """
        self.check_file(name)
        flags = os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return os.open(name, flags, 0o666, dir_fd=self._handle)

    def is_file(self, descriptor: int, name: str) -> bool:
        """Whether ``name`` is still the name of the open file ``descriptor``."""
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(name, dir_fd=self._handle, follow_symlinks=False))
        except FileNotFoundError:
            return False

    def writing(self, name: str) -> AbstractContextManager[BinaryIO]:
        """A context that yields a stream, whose content becomes the file ``name`` if no error is raised."""
        return whole_file_in(self._handle, self.path / name)

    def write(self, name: str, content: bytes) -> None:
        """Write a file whole; if an error is raised, the earlier file remains unchanged."""
        with self.writing(name) as stream:
            stream.write(content)

    def scratch(self) -> BinaryIO:
        """An empty file for writing and reading, which has no name any more, and ends when it is closed."""
        name = temporary_name()
        descriptor = os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=self._handle)
        with suppress(FileNotFoundError):  # another process has called `sweep`
            os.unlink(name, dir_fd=self._handle)
        return os.fdopen(descriptor, "w+b")

    def mark(self, name: str) -> None:
        """Create an empty file, unless the name is taken."""
        if not self.holds(name):
            os.close(create_file(name, self._handle))
            os.fsync(self._handle)

    def remove(self, name: str) -> None:
        """Remove a file, if it exists.

        Raises:
            OutputError: If something other than a regular file has the name.
        """
        self.check_file(name)
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._handle)

    def move(self, name: str, to: Self) -> None:
        """Move a file into another folder under the same name, where it may replace a file.

        Raises:
            OutputError: If something other than a regular file has that path.
        """
        self._move(name, to.path / name, to._handle)

    def move_out(self, name: str, to: Path) -> None:
        """Move a file to a path in any folder, where it may replace a file.

        Raises:
            OutputError: If something other than a regular file has that path.
        """
        with folder_handle(to.parent) as folder:
            self._move(name, to, folder)

    def _move(self, name: str, to: Path, folder: int) -> None:
        check_replaceable_file(to, folder)
        os.rename(name, to.name, src_dir_fd=self._handle, dst_dir_fd=folder)
        os.fsync(folder)

    def clear(self, is_own_name: Callable[[str], object], last: tuple[str, ...] = ()) -> None:
        """Remove all files, and the folder unless another process creates a file in it meanwhile.

        Args:
            is_own_name: Says whether batchcls creates files of a name in the folder; if another is there, nothing is
                removed.
            last: Names that are removed after all others, in this order.
        """
        self.check_names(is_own_name)
        for name in [*(name for name in self.names() if name not in last), *last]:
            self.remove(name)
        self.sweep()
        try:
            os.rmdir(self.path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
                raise

    def sweep(self) -> None:
        """Remove the temporary files that killed processes left."""
        for name in os.listdir(self._handle):
            if TEMPORARY.fullmatch(name) and kind_of(name, self._handle) == "a file":
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=self._handle)

    def _check_owner(self) -> None:
        probe = temporary_name()
        descriptor = create_file(probe, self._handle)
        try:
            owner, process_owner = os.fstat(self._handle).st_uid, os.fstat(descriptor).st_uid
        finally:
            os.close(descriptor)
            with suppress(FileNotFoundError):  # another process has called `sweep`
                os.unlink(probe, dir_fd=self._handle)
        if owner != process_owner:
            raise OutputError(
                f"{str(self.path)!r} belongs to another user ({owner}; new files in it, to {process_owner}); choose "
                "another --out, such as a new folder"
            )
