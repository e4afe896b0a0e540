"""Reading of slides that are members of tar files in object stores."""

from contextlib import suppress
from functools import partial
from threading import Lock

from batchcls.images.servers.group_buffer import BUFFER_BYTES
from batchcls.images.sources.file_groups import FileGroupReader
from batchcls.images.sources.files import FileReader
from batchcls.images.sources.object_readers import open_object_process
from batchcls.images.sources.tar_images import add_to_index
from batchcls.images.sources.tar_readers import TarReader, place_of_member
from batchcls.images.sources.tar_source import listed_members
from batchcls.storage.file_client import FileLane
from batchcls.storage.tar_headers import Member, TarError


class RemoteTarReaders:
    """A `batchcls.images.sources.base.SlideReaders` for members of tar files in stores, which another process reads.

    Raises:
        SlidesError: If obstore is not installed.
    """

    group_memory_bytes = BUFFER_BYTES

    def __init__(self) -> None:
        self._process = open_object_process()
        self._index: tuple[str, dict[bytes, Member]] = ("", {})
        """The tar file that was searched last, and its files by their names."""
        self._indexing = Lock()

    @property
    def peak_memory_bytes(self) -> int:
        return self._process.peak_memory_bytes

    def reader(self, timeout_s: float) -> TarReader:
        lane = self._process.lane(timeout_s)
        return TarReader(FileReader(lane), partial(self._find, lane))

    def group_reader(self, max_pixels: int) -> FileGroupReader:
        return FileGroupReader(self._process, max_pixels, place_of=place_of_member)

    def close(self) -> None:
        self._process.close()

    def _find(self, lane: FileLane, url: str, name: bytes) -> Member | None:
        """The last member of a name in a tar file, which is listed for it."""
        with self._indexing:
            if self._index[0] != url:
                index: dict[bytes, Member] = {}
                with suppress(TarError):
                    for members in listed_members(lane, url):
                        add_to_index(index, members)
                self._index = (url, index)
            return self._index[1].get(name)
