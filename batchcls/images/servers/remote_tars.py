"""Tar files in object stores, listed and read by ranges; nothing is copied to a disk."""

import os
from collections.abc import Iterator
from time import perf_counter, thread_time

from batchcls.errors import SlidesError
from batchcls.images.servers.group_buffer import GroupBuffer
from batchcls.images.servers.group_server import Places
from batchcls.images.servers.object_reads import patiently, store_and_key
from batchcls.images.servers.tar_members import read_members
from batchcls.storage.object_store import obstore
from batchcls.storage.tar_headers import Member, members

_LEAST_WINDOW_BYTES, _LARGEST_WINDOW_BYTES = 64 << 10, 8 << 20
_LARGEST_GAP_BYTES = 1 << 20
"""Distance of two headers up to which what is between them is read too, which takes less time than another request."""


def remote_members(url: str) -> Iterator[Member]:
    """The members of a tar file in a store, see `batchcls.storage.tar_headers.members`.

    Raises:
        OSError: If it cannot be read, after several tries.
    """
    window = _Window(url)
    yield from members(window.read, window.size_bytes)


def read_remote_members(
    buffer: GroupBuffer, paths: list[bytes], places: Places, most_bytes: int
) -> tuple[float, float]:
    """Read members of tar files in stores into a group's buffer: those that lie close together by one request.

    Returns:
        CPU time and wall time.
    """
    since, cpu_since = perf_counter(), thread_time()
    read_members(buffer, paths, places, most_bytes, _read_range)
    return thread_time() - cpu_since, perf_counter() - since


def _read_range(url: bytes, data: memoryview, start: int) -> int:
    content = _range(os.fsdecode(url), start, len(data))
    data[: len(content)] = content
    return len(content)


def _range(url: str, start: int, length: int) -> memoryview:
    """Bytes of an object; fewer than ``length`` where it ends."""

    def request() -> memoryview:
        store, key = store_and_key(url)
        return memoryview(obstore.get_range(store, key, start=start, length=length))

    return patiently(url, request)


class _Window:
    """An object of which the part that was read last is kept; it grows while one part after the other is asked for."""

    def __init__(self, url: str) -> None:
        self._url = url
        try:
            self.size_bytes: int = patiently(url, lambda: obstore.head(*store_and_key(url))["size"])
        except SlidesError as error:
            raise OSError(str(error)) from error
        self._start = 0
        self._data = memoryview(b"")
        self._window_bytes = _LEAST_WINDOW_BYTES

    def read(self, offset: int, length: int) -> bytes:
        """Bytes from an offset on; fewer than ``length`` only where the object ends."""
        end = min(offset + length, self.size_bytes)
        if offset >= end:
            return b""
        if not self._start <= offset <= end <= self._start + len(self._data):
            is_near = 0 <= offset - (self._start + len(self._data)) <= _LARGEST_GAP_BYTES
            grown = min(2 * self._window_bytes, _LARGEST_WINDOW_BYTES)
            self._window_bytes = grown if is_near else _LEAST_WINDOW_BYTES
            whole = min(max(length, self._window_bytes), self.size_bytes - offset)
            self._start, self._data = offset, _range(self._url, offset, whole)
        begin = offset - self._start
        return bytes(self._data[begin : begin + end - offset])
