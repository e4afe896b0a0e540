"""The folder of an unfinished output on a disk, locked by this process."""

import os
import shlex
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

from batchcls.storage.atomic import check_replaceable_file
from batchcls.storage.file_set import check_replaceable_folder, move_files, remove_inner_folders, writing_files
from batchcls.storage.locked_folder import (
    BESIDE_FILE,
    FINISHED_FILE,
    LOCK_FILE,
    PART_NAME,
    RUN_FILE,
    WHOLE_FILE,
    OutputFileNames,
    clear_output,
    lock_folder,
    output_errors,
)
from batchcls.storage.output_names import beside_path, partial_folder
from batchcls.storage.owned_folder import OwnedFolder

_LARGEST_NOTE_BYTES = 64 << 20


class LocalOutputFolder:
    """The folder ``path``.partial; see `OutputFolder`.

    Attributes:
        own: Open handle of the folder.

    Args:
        path: Path of the finished output.
        is_own_name: Says whether batchcls creates files of a name in the folder.
        is_folder: Whether the finished output is a folder of files.

    Raises:
        OutputError: If another run holds the folder, ``path`` may not be replaced, or the folder contains files that
            batchcls did not create.
    """

    def __init__(self, path: Path, is_own_name: OutputFileNames, *, is_folder: bool = False) -> None:
        self._path, self._is_own_name = path, is_own_name
        self.place = partial_folder(path)
        with self.errors():
            (check_replaceable_folder if is_folder else check_replaceable_file)(path)
            self.own, self._lock = lock_folder(path, is_own_name)

    @property
    def start_over(self) -> str:
        return f"rm -r {shlex.quote(str(self.place))}"

    def read_note(self) -> bytes | None:
        if not self.own.holds(RUN_FILE):
            return None
        with os.fdopen(self.own.file(RUN_FILE), "rb") as stream:
            return stream.read(_LARGEST_NOTE_BYTES)

    def write_note(self, content: bytes) -> None:
        self.own.write(RUN_FILE, content)

    def drop_parts(self) -> None:
        remove_inner_folders(self.own)
        for name in self.own.names():
            if name != LOCK_FILE:
                self.own.remove(name)

    def parts(self) -> list[int]:
        return [int(match[1]) for name in self.own.names() if (match := PART_NAME.fullmatch(name))]

    def reading_part(self, number: int) -> AbstractContextManager[BinaryIO]:
        return os.fdopen(self.own.file(_part_name(number)), "rb")

    def writing_part(self, number: int) -> AbstractContextManager[BinaryIO]:
        return self.own.writing(_part_name(number))

    def scratch(self) -> BinaryIO:
        return self.own.scratch()

    def writing_whole(self) -> AbstractContextManager[BinaryIO]:
        return self.own.writing(WHOLE_FILE)

    def writing_files(self) -> AbstractContextManager[OwnedFolder]:
        return writing_files(self.own)

    def write_beside(self, content: bytes) -> None:
        check_replaceable_file(beside_path(self._path))
        self.own.write(BESIDE_FILE, content)

    def publish(self) -> None:
        self.own.mark(FINISHED_FILE)
        if not move_files(self.own, self._path):
            self.own.move_out(WHOLE_FILE, self._path)
        if self.own.holds(BESIDE_FILE):
            self.own.move_out(BESIDE_FILE, beside_path(self._path))
        self.discard()

    def discard(self) -> None:
        clear_output(self.own, self._is_own_name)

    def close(self) -> None:
        os.close(self._lock)
        self.own.close()

    def errors(self) -> AbstractContextManager[None]:
        return output_errors(self.place)


def _part_name(number: int) -> str:
    return f"part-{number:06d}.arrow"
