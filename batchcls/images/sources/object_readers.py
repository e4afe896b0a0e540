"""Reading of slides that are objects of stores and web servers, by another process."""

import atexit
import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import lru_cache
from importlib.util import find_spec

from batchcls.errors import DecoderError, SlidesError
from batchcls.images.servers.group_buffer import BUFFER_BYTES
from batchcls.images.sources.base import SlideReader, SlideReaders
from batchcls.images.sources.file_groups import FileGroupReader
from batchcls.images.sources.files import FileReader
from batchcls.records import Slide
from batchcls.storage.file_client import FileProcess
from batchcls.storage.object_credentials import provider_environment

_SERVER = "batchcls.images.servers.object_server"


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
        return FileGroupReader(self._process, max_pixels, place_of=_listed_size)

    def close(self) -> None:
        self._process.close()


def _listed_size(slide: Slide) -> tuple[int, int, int]:
    """The place of an object in a request: only its size, 0 if it is not known."""
    return 0, 0, slide.size_bytes or 0


@contextmanager
def lasting_reader(timeout_s: float, open_readers: Callable[[], SlideReaders] = ObjectReaders) -> Iterator[SlideReader]:
    """A context that yields a reader of a process that serves all such readers of this process, until its end.

    Any thread may use this function, and a forked process; a change of a provider's environment variables counts.

    Args:
        timeout_s: How long the network may take for one answer.
        open_readers: Starts the process.

    Raises:
        OSError: If no object can be read; another process serves the next call then.
    """
    try:
        readers = _lasting_readers(open_readers, os.getpid(), tuple(sorted(provider_environment().items())))
        with closing(readers.reader(timeout_s)) as reader:
            yield reader
    except (DecoderError, SlidesError) as error:
        _lasting_readers.cache_clear()
        raise OSError(errno.EREMOTEIO, str(error)) from error


@lru_cache(16)
def _lasting_readers(
    open_readers: Callable[[], SlideReaders], process: int, variables: tuple[tuple[str, str], ...]
) -> SlideReaders:
    readers = open_readers()
    atexit.register(readers.close)
    return readers


def open_object_process() -> FileProcess:
    """A process that runs `batchcls.images.servers.object_server`, with the environment variables of this one.

    Raises:
        SlidesError: If obstore is not installed.
    """
    if not find_spec("obstore"):
        raise SlidesError("reading URLs needs obstore, which is not installed; run: pip install 'batchcls[cloud]'")
    return FileProcess(_SERVER, [folder for folder in sys.path if os.path.isabs(folder)])
