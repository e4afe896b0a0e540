"""Single objects of stores and web servers, read from their first byte on, or in parts."""

import random
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import lru_cache
from typing import Any, TypeVar

from batchcls.errors import SlidesError
from batchcls.storage.file_server import LARGEST_DATA_BYTES, LARGEST_FIRST_BYTES
from batchcls.storage.object_store import ObjectStore, RemoteError, exceptions, object_errors, obstore, open_store
from batchcls.storage.urls import bucket_and_key

PAUSES_S = (0.2, 0.6, 1.5)
"""Pauses before an object is asked for again that obstore has given up: access was refused, or its bytes ended
early."""
LONGEST_S = 5.0
"""Time after which nothing is tried again here, because obstore itself has tried often enough."""
_STREAM_BYTES = 8 * LARGEST_DATA_BYTES
"""Bytes that are asked for where a part of an object is read, of which later reads take the rest."""
T = TypeVar("T")


class ChangedError(RemoteError):
    """An object that is another one than when it was opened."""

    def __init__(self) -> None:
        super().__init__("it was changed while it was read")


class RemoteObject:
    """An object as it was when it was opened, by one request that brings its first bytes too.

    Raises:
        FileNotFoundError: If there is no such object.
        RemoteError: If it cannot be read, after several tries.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._stream: Iterator[bytes] = iter(())
        self._position = self._end = 0
        """Offset of the next byte of the stream, and offset behind its last one."""
        self._ahead = memoryview(b"")
        """Next bytes of the stream, which have been received already."""
        patiently(url, self._open)

    def read(self, offset: int, length: int) -> bytes:
        """Bytes from ``offset`` on; fewer than ``length`` only where the object ends.

        Raises:
            RemoteError: If they cannot be read, after several tries, or the object has been changed.
        """
        end = min(offset + length, self.size_bytes)
        return patiently(self._url, lambda: self._read(offset, end))

    def _open(self) -> None:
        self._store, self._key = store_and_key(self._url)
        result = obstore.get(self._store, self._key)
        meta = result.meta
        self.size_bytes: int = meta["size"]
        self.modified_ns = modified_ns(meta["last_modified"])
        self._etag = meta["e_tag"]
        self._begin(result, 0, self.size_bytes)
        self.first_bytes = self._read(0, min(self.size_bytes, LARGEST_FIRST_BYTES))

    def _read(self, offset: int, end: int) -> bytes:
        data = bytearray()
        while (at := offset + len(data)) < end:
            if at != self._position or at >= self._end:
                self._seek(at, end)
            while self._position < at:
                self._next(at - self._position)
            data += self._next(end - at)
        return bytes(data)

    def _seek(self, offset: int, end: int) -> None:
        end = min(self.size_bytes, max(end, offset + _STREAM_BYTES))
        options: Any = {"range": (offset, end)}
        if self._etag and not self._etag.startswith("W/"):
            options["if_match"] = self._etag
        try:
            result = obstore.get(self._store, self._key, options=options)
        except exceptions.PreconditionError as error:
            raise ChangedError from error
        except (exceptions.GenericError, exceptions.NotSupportedError) as error:
            if isinstance(error, exceptions.GenericError) and "NotPartial" not in str(error):
                raise
            result, offset, end = obstore.get(self._store, self._key), 0, self.size_bytes  # it sends whole objects only
        if (result.meta["size"], result.meta["e_tag"]) != (self.size_bytes, self._etag):
            raise ChangedError
        self._begin(result, offset, end)

    def _begin(self, result: Any, offset: int, end: int) -> None:
        self._stream, self._ahead = iter(result.stream(LARGEST_FIRST_BYTES)), memoryview(b"")
        self._position, self._end = offset, end

    def _next(self, length: int) -> memoryview:
        """At least one and at most ``length`` bytes of the stream."""
        position, self._position = self._position, -1  # after an error the next try asks for these bytes again
        self._ahead = self._ahead or memoryview(next(self._stream, b""))
        if not self._ahead:
            raise RemoteError("the answer ended early")
        part, self._ahead = self._ahead[:length], self._ahead[length:]
        self._position = position + len(part)
        return part


def store_and_key(url: str) -> tuple[ObjectStore, str]:
    """The store of an object, and its key there.

    Raises:
        RemoteError: If the store cannot be used.
    """
    try:
        bucket_url, key = bucket_and_key(url)
        return _store(bucket_url), key
    except SlidesError as error:
        raise RemoteError(str(error)) from error


@lru_cache(64)  # the environment, which `open_store` reads, is that of the process's start
def _store(bucket_url: str) -> ObjectStore:
    return open_store(bucket_url)


def modified_ns(time_of_change: datetime) -> int:
    """A time in nanoseconds since 1970, UTC, in whole seconds, for only listings tell more; 0 if it is not known."""
    return max(0, int(time_of_change.timestamp())) * 1_000_000_000


def patiently(url: str, call: Callable[[], T]) -> T:
    """The result of a call that reads an object, which is tried again after errors that may pass.

    Raises:
        OSError: Of the last try; see `batchcls.storage.object_store.object_errors`.
    """
    since = time.monotonic()
    for number in range(len(PAUSES_S)):
        try:
            with object_errors(url):
                return call()
        except RemoteError as error:
            if isinstance(error, ChangedError) or time.monotonic() - since > LONGEST_S:
                raise
        pause(number)
    with object_errors(url):
        return call()


def pause(number: int) -> None:
    """Wait before the next try, by the number of pauses before; at random, so that not all come again at once."""
    time.sleep(PAUSES_S[number] * random.uniform(0.5, 1.5))  # noqa: S311
