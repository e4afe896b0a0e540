"""The folder of an unfinished output: on a disk, or as objects in a store."""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, Protocol

from batchcls.storage import locked_folder
from batchcls.storage.file_or_object import is_object
from batchcls.storage.local_output_folder import LocalOutputFolder
from batchcls.storage.locked_folder import OutputFileNames
from batchcls.storage.owned_folder import OwnedFolder


class OutputFolder(Protocol):
    """Parts of an unfinished output, and a note on the run; this process alone changes them until `close`.

    Every method raises an OSError if the disk or the store refuses, and an `OutputError` if another run has taken over.
    """

    @property
    def place(self) -> Path | str:
        """Path or URL of the folder."""

    @property
    def start_over(self) -> str:
        """A command that removes the folder."""

    def read_note(self) -> bytes | None:
        """The note on the run that began the folder; None if there is none."""

    def write_note(self, content: bytes) -> None:
        """Replace the note, whole or not at all."""

    def drop_parts(self) -> None:
        """Remove every part of a run that left no note."""

    def parts(self) -> list[int]:
        """The numbers of the parts, in order."""

    def reading_part(self, number: int) -> AbstractContextManager[BinaryIO]:
        """A context that yields a part, open for reading."""

    def writing_part(self, number: int) -> AbstractContextManager[BinaryIO]:
        """A context that yields a stream, whose content becomes the part of that number if no error is raised."""

    def scratch(self) -> BinaryIO:
        """An empty file for writing and reading, which has no name, and ends when it is closed."""

    def writing_whole(self) -> AbstractContextManager[BinaryIO]:
        """A context that yields a stream for the whole output, which nobody sees before `publish`."""

    def writing_files(self) -> AbstractContextManager[OwnedFolder]:
        """A context that yields a folder for the files of the whole output, which nobody sees before `publish`.

        Raises:
            OutputError: If such a folder is not written to this kind of place.
        """

    def write_beside(self, content: bytes) -> None:
        """Keep the content of the JSON file that belongs beside the whole output, until `publish`."""

    def publish(self) -> None:
        """Put what `writing_whole`, `writing_files` and `write_beside` took in its place, and remove the folder.

        If this process is killed on the way, the next one that opens the folder completes it, or goes on with the
        parts.
        """

    def discard(self) -> None:
        """Remove the folder with all that is in it."""

    def close(self) -> None:
        """Release the folder for another run; its parts stay."""

    def errors(self) -> AbstractContextManager[None]:
        """A context in which an OSError becomes an `OutputError` that says which rows are kept, and how to go on."""


def open_output_folder(path: Path | str, others: Iterable[str] = (), *, is_folder: bool = False) -> OutputFolder:
    """The folder of the unfinished output ``path``, made if it does not exist, and locked.

    Args:
        path: Path of the finished output, or its URL in an object store.
        others: Names of further files in the folder; see `ResumableOutput`.
        is_folder: Whether the finished output is a folder of files.

    Raises:
        OutputError: If another run holds the folder, ``path`` may not be replaced, or the folder contains files that
            batchcls did not create.
    """
    if not is_object(path):
        return LocalOutputFolder(Path(path), OutputFileNames(others), is_folder=is_folder)
    from batchcls.storage.object_folder import ObjectFolder  # obstore is an extra

    return ObjectFolder(str(path))


def clear_leftovers(path: Path | str) -> None:
    """Remove the folder of a run that was killed after ``path`` was in its place; see `locked_folder.clear_leftovers`.

    Raises:
        OutputError: If a run is writing ``path``, or batchcls did not make all that is in the folder.
    """
    if not is_object(path):
        locked_folder.clear_leftovers(Path(path))
        return
    from batchcls.storage.object_folder import ObjectFolder

    ObjectFolder.clear_leftovers(str(path))
