"""Reading of slides that are files."""

import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from batchcls.images.formats.refusal import RefusedError, check_file
from batchcls.images.servers.group_buffer import BUFFER_BYTES
from batchcls.images.sources.file_groups import FileGroupReader, PlaceOf, path_to_open
from batchcls.records import Slide
from batchcls.storage import long_paths
from batchcls.storage.file_client import FileLane, FileProcess, OpenFile
from batchcls.storage.regular_file import IrregularError, open_regular, read_up_to

_GROUP_SERVER = "batchcls.images.servers.group_server"


class FileReaders:
    """A `batchcls.images.sources.base.SlideReaders` for files: another process opens and reads them.

    Relative paths are below the working folder that this process has when a reader is made.

    Args:
        server: Module that the other process runs.
    """

    group_memory_bytes = BUFFER_BYTES

    def __init__(self, server: str = _GROUP_SERVER) -> None:
        packages = [folder for folder in sys.path if os.path.isabs(folder)]
        self._started_in = _working_folder()
        self._process = FileProcess(server, packages)

    @property
    def peak_memory_bytes(self) -> int:
        return self._process.peak_memory_bytes

    def reader(self, timeout_s: float) -> "FileReader":
        return FileReader(self._process.lane(timeout_s), self._base())

    def group_reader(self, max_pixels: int, place_of: PlaceOf | None = None) -> FileGroupReader:
        """A reader of groups; with ``place_of``, of slides in archives, see `FileGroupReader`."""
        return FileGroupReader(self._process, max_pixels, self._base(), place_of)

    def close(self) -> None:
        self._process.close()

    def _base(self) -> str:
        """Folder of relative paths; empty if it is the one that the other process was started in."""
        folder = _working_folder()
        return "" if folder == self._started_in else folder


class FileReader:
    """A `batchcls.images.sources.base.SlideReader` for files."""

    def __init__(self, lane: FileLane, base: str = "") -> None:
        self._lane = lane
        self._base = base

    def open(self, slide: Slide) -> OpenFile:
        with _links_refused(slide):
            return self._lane.open(path_to_open(slide, self._base))

    def close(self) -> None:
        self._lane.close()


@contextmanager
def _links_refused(slide: Slide) -> Iterator[None]:
    """A context in which a file that does not lie in `Slide.within` becomes a refusal."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        raise RefusedError(
            "unreadable",
            f"it is a link that leads out of {slide.within!r}; list the file that it leads to, and name a folder that "
            "holds it: --root DIR",
        ) from error


def _working_folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # it has been deleted
        return ""


def read_file(slide: Slide, limit_bytes: int) -> bytes:
    """All bytes of a slide's file, read by the calling thread.

    Raises:
        OSError: If the file cannot be read.
        RefusedError: If the slide is no regular file, is empty, or has more than ``limit_bytes``.
    """
    try:
        with _links_refused(slide):
            stream, status = open_regular(path_to_open(slide))
    except IrregularError as error:
        raise RefusedError("not an image", str(error)) from error
    with stream:
        check_file(status.st_size, limit_bytes, is_regular=True)
        return read_up_to(stream, status.st_size)


def file_exists(slide: Slide) -> bool:
    """Whether a slide's file exists and is a regular file; True as well if the file system reports a timeout."""
    try:
        return stat.S_ISREG(long_paths.status(slide.file).st_mode)
    except TimeoutError:  # raised by the file system itself; the file may exist
        return True
    except (OSError, ValueError):
        return False
