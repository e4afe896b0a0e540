"""Reading of slides that are objects of stores and web servers, by another process."""

import os
import sys
from importlib.util import find_spec

from batchcls.errors import SlidesError
from batchcls.images.sources.file_groups import FileGroupReader
from batchcls.images.sources.files import FileReader
from batchcls.images.sources.group_buffer import BUFFER_BYTES
from batchcls.storage.file_client import FileProcess

_SERVER = "batchcls.images.sources.object_server"


class ObjectReaders:
    """A `batchcls.images.sources.base.SlideReaders` for objects, which takes their URLs for paths.

    Raises:
        SlidesError: If obstore is not installed.
    """

    group_memory_bytes = BUFFER_BYTES

    def __init__(self) -> None:
        self._process = open_object_process()

    @property
    def peak_memory_bytes(self) -> int:
        return self._process.peak_memory_bytes

    def reader(self, timeout_s: float) -> FileReader:
        return FileReader(self._process.lane(timeout_s))

    def group_reader(self, max_pixels: int) -> FileGroupReader:
        return FileGroupReader(self._process, max_pixels)

    def close(self) -> None:
        self._process.close()


def open_object_process() -> FileProcess:
    """A process that runs `batchcls.images.sources.object_server`, with the environment variables of this one.

    Raises:
        SlidesError: If obstore is not installed.
    """
    if not find_spec("obstore"):
        raise SlidesError("reading URLs needs obstore, which is not installed; run: pip install 'batchcls[cloud]'")
    return FileProcess(_SERVER, [folder for folder in sys.path if os.path.isabs(folder)])
