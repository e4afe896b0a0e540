"""A folder of our own, held by a handle: whatever its path comes to name meanwhile, nothing else is touched."""

import errno
import os
import re
from collections.abc import Callable
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
"""What NFS calls a removed file that somebody has open still."""


class OwnedFolder:
    """An existing folder that is no link, and that belongs to whoever owns what we make in it.

    Which user that is, the file system says (a network's may have another than this process), so it is asked: by a
    file that is made there and removed again.

    Raises:
        OutputError: If it is a link, no folder, or another user's.
        OSError: If it cannot be opened, or nothing can be made in it.
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
        """The folder, made with its parents if it is not there."""
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
        """Whether its path names it still."""
        try:
            return os.path.samestat(os.lstat(self.path), os.fstat(self._handle))
        except FileNotFoundError:
            return False

    def names(self) -> list[str]:
        """What is in it, by name; without what is on its way to or from there."""
        names = sorted(os.listdir(self._handle))
        return [name for name in names if not TEMPORARY.fullmatch(name) and not _OPEN_ELSEWHERE.fullmatch(name)]

    def holds(self, name: str) -> bool:
        return kind_of(name, self._handle) is not None

    def check_names(self, ours: Callable[[str], object]) -> None:
        """Refuse what is not ours.

        Args:
            ours: Whether we make files of that name there.

        Raises:
            OutputError: If there is a file of another name, or anything but a file.
        """
        for name in self.names():
            kind = kind_of(name, self._handle)
            if kind is not None and (kind != "a file" or not ours(name)):
                raise OutputError(
                    f"{str(self.path / name)!r} is {kind} that batchcls did not make; nothing was touched: move it "
                    "away, or choose another --out"
                )

    def check_file(self, name: str) -> None:
        """Refuse what is no file, where one of ours is to be.

        Raises:
            OutputError: Naming it.
        """
        check_replaceable_file(self.path / name, self._handle)

    def file(self, name: str) -> int:
        """A descriptor to read a file by.

        Raises:
            OSError: If it cannot be opened, or is a link, a pipe or a device.
        """
        return open_regular_file(name, self._handle)

    def lock_file(self, name: str) -> int:
        """A descriptor of a file that is there to be locked, and that nobody writes to.

        Raises:
            OutputError: If something that is no file bears the name.
        """
        self.check_file(name)
        flags = os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return os.open(name, flags, 0o666, dir_fd=self._handle)

    def is_file(self, descriptor: int, name: str) -> bool:
        """Whether a name is that of an open file still."""
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(name, dir_fd=self._handle, follow_symlinks=False))
        except FileNotFoundError:
            return False

    def writing(self, name: str) -> AbstractContextManager[BinaryIO]:
        """A stream whose content becomes the file if all goes well."""
        return whole_file_in(self._handle, self.path / name)

    def write(self, name: str, content: bytes) -> None:
        """Leave a file with this content, or as it was."""
        with self.writing(name) as stream:
            stream.write(content)

    def mark(self, name: str) -> None:
        """Let an empty file bear the name."""
        if not self.holds(name):
            os.close(create_file(name, self._handle))
            os.fsync(self._handle)

    def remove(self, name: str) -> None:
        """Let no file of ours bear the name.

        Raises:
            OutputError: If something that is no file does.
        """
        self.check_file(name)
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._handle)

    def move(self, name: str, to: Self) -> None:
        """Put a file into another folder under the same name; one that is there is replaced.

        Raises:
            OutputError: If something that is no file stands there.
        """
        self._move(name, to.path / name, to._handle)

    def move_out(self, name: str, to: Path) -> None:
        """Put a file in its place, in a folder that need not be ours; one that is there is replaced.

        Raises:
            OutputError: If something that is no file stands there.
        """
        with folder_handle(to.parent) as folder:
            self._move(name, to, folder)

    def _move(self, name: str, to: Path, folder: int) -> None:
        check_replaceable_file(to, folder)
        os.rename(name, to.name, src_dir_fd=self._handle, dst_dir_fd=folder)
        os.fsync(folder)

    def clear(self, ours: Callable[[str], object], last: tuple[str, ...] = ()) -> None:
        """Remove what we made, and the folder itself unless somebody puts something there meanwhile.

        Args:
            ours: As of `check_names`, which comes first.
            last: OwnedNames that go after all others, in this order.
        """
        self.check_names(ours)
        for name in [*(name for name in self.names() if name not in last), *last]:
            self.remove(name)
        self.sweep()
        try:
            os.rmdir(self.path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
                raise

    def sweep(self) -> None:
        """Remove what killed processes left unfinished."""
        for name in os.listdir(self._handle):
            if TEMPORARY.fullmatch(name) and kind_of(name, self._handle) == "a file":
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=self._handle)

    def _check_owner(self) -> None:
        probe = temporary_name()
        descriptor = create_file(probe, self._handle)
        try:
            owner, ours = os.fstat(self._handle).st_uid, os.fstat(descriptor).st_uid
        finally:
            os.close(descriptor)
            with suppress(FileNotFoundError):  # another process of ours has swept
                os.unlink(probe, dir_fd=self._handle)
        if owner != ours:
            raise OutputError(
                f"{str(self.path)!r} belongs to another user ({owner}; what is made there, to {ours}); choose another "
                "--out, such as a new folder"
            )
