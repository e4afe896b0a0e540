"""An object as a file that is open for reading, of which only what is asked for is fetched."""

import io
from typing import Any, BinaryIO, cast

from batchcls.errors import SlidesError
from batchcls.storage.object_store import object_errors, obstore, open_store
from batchcls.storage.urls import bucket_and_key

_BUFFER_BYTES = 1 << 20


class _ObjectReader(io.RawIOBase):
    """One version of an object; if the object is replaced meanwhile, reading ends with an error.

    Raises:
        OSError: From every method, if there is no such object, or the store fails.
    """

    def __init__(self, url: str) -> None:
        bucket, self._key = bucket_and_key(url)
        self._url, self._store = url, open_store(bucket)
        with object_errors(url):
            status = obstore.head(self._store, self._key)
        self._size: int = status["size"]
        self._version = status["e_tag"]
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        if place < 0:
            raise ValueError("a place before the beginning")
        self._place = place
        return place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        end = min(self._place + len(view), self._size)
        if end <= self._place:
            return 0
        options: Any = {"range": (self._place, end), "if_match": self._version}
        with object_errors(self._url):
            content = obstore.get(self._store, self._key, options=options).bytes()
        if len(content) != end - self._place:
            raise OSError(f"the store answered {len(content):,} bytes for {end - self._place:,}")
        view[: len(content)] = content
        self._place = end
        return len(content)


def open_object(url: str) -> BinaryIO:
    """An object, open for reading from its beginning; the caller closes it.

    Raises:
        OSError: If there is no such object, the URL names none, or the store fails.
    """
    try:
        return cast(BinaryIO, io.BufferedReader(_ObjectReader(url), _BUFFER_BYTES))
    except SlidesError as error:
        raise OSError(str(error)) from error
