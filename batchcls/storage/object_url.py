"""The URL of one object, with what a program does to it: look, read, write, remove."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import sleep
from typing import Any, BinaryIO, TypeVar

from batchcls.errors import OutputError, SlidesError
from batchcls.storage.object_reasons import place_problem
from batchcls.storage.object_store import RemoteError, endpoint_of, exceptions, object_errors, obstore, open_store
from batchcls.storage.urls import bucket_and_key

_PAUSES_S = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds between requests to a store that fails, beside the tries that obstore makes within a second or two."""
T = TypeVar("T")


def patiently(request: Callable[[], T]) -> T:
    """The result of a request, which is made again for half a minute if the store or the network fails.

    Raises:
        OSError: If it fails for longer, or the store refuses access.
    """
    for pause_s in _PAUSES_S:
        try:
            return request()
        except RemoteError as error:
            if isinstance(error.__cause__, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError):
                raise
            sleep(pause_s)
    return request()


@dataclass(frozen=True, slots=True)
class ObjectUrl:
    """The URL of an object that may exist or not; every method raises an OSError if the store fails."""

    bucket: str
    """URL of the bucket, such as ``s3://name``."""
    key: str

    @classmethod
    def of(cls, url: str) -> "ObjectUrl":
        """The URL that a user named.

        Raises:
            OutputError: If no object can be written there.
        """
        try:
            bucket, key = bucket_and_key(url)
            open_store(bucket)
        except SlidesError as error:
            raise OutputError(str(error)) from error
        if bucket.startswith("http"):
            raise OutputError(f"{url!r} is on a web server, which takes no files; write to s3://, gs:// or az://")
        if not key or not bucket.partition("://")[2] or any(part in ("", ".", "..") for part in key.split("/")):
            raise OutputError(f"{url!r} names no object; name one, such as '{bucket}/predictions.parquet'")
        return cls(bucket, key)

    def __str__(self) -> str:
        return f"{self.bucket}/{self.key}"

    @property
    def store(self) -> Any:
        """The store of the bucket."""
        return open_store(self.bucket)

    def named(self, name: str) -> "ObjectUrl":
        """The object of a name below this one, as of a file in a folder."""
        return ObjectUrl(self.bucket, f"{self.key}/{name}")

    def status(self) -> Any | None:
        """Size, time of change and version as obstore names them; None if there is no object."""
        try:
            with object_errors(str(self)):
                return obstore.head(self.store, self.key)
        except FileNotFoundError:
            return None

    def names(self) -> list[str]:
        """Sorted names of all objects below this one, as of the files in a folder."""
        with object_errors(str(self)):
            pages = obstore.list(self.store, prefix=self.key)
            return sorted(item["path"].removeprefix(f"{self.key}/") for page in pages for item in page)

    def blocks(self) -> Iterator[memoryview]:
        """The object's content, block by block."""
        with object_errors(str(self)):
            for block in obstore.get(self.store, self.key).stream():
                yield memoryview(block)

    def read(self, largest_bytes: int) -> bytes:
        """The content of a small object.

        Raises:
            OSError: If there is no such object, it has more than ``largest_bytes``, or the store fails.
        """
        with object_errors(str(self)):
            answer = obstore.get(self.store, self.key)
            if answer.meta["size"] > largest_bytes:
                raise OSError(f"{str(self)!r} has {answer.meta['size']:,} bytes, of {largest_bytes:,} at most")
            return bytes(answer.bytes())

    def write(self, content: bytes | BinaryIO) -> None:
        """Create or replace the object, patiently; it is seen whole or not at all."""

        def put() -> None:
            with object_errors(str(self)):
                if not isinstance(content, bytes):
                    content.seek(0)
                obstore.put(self.store, self.key, content)

        patiently(put)

    def remove(self) -> None:
        """Remove the object, if there is one."""
        try:
            with object_errors(str(self)):
                obstore.delete(self.store, self.key)
        except FileNotFoundError:  # azure and a local store say so
            pass


def names_below(url: str) -> list[str]:
    """Sorted names of the objects, and of the folders, right below a folder's URL.

    Raises:
        OutputError: If the store cannot be asked, or the URL names no folder of a bucket.
    """
    folder = ObjectUrl.of(url.rstrip("/"))
    with object_output_errors(url), object_errors(url):
        answer = obstore.list_with_delimiter(folder.store, prefix=folder.key)
    paths = [*(item["path"] for item in answer["objects"]), *answer["common_prefixes"]]
    return sorted(path.rstrip("/").removeprefix(f"{folder.key}/") for path in paths)


@contextmanager
def object_output_errors(place: str, *, is_begun: bool = False) -> Iterator[None]:
    """A context in which an OSError becomes an `OutputError` that says what is kept, and how to go on.

    Args:
        place: URL of the output, or of its unfinished parts.
        is_begun: Whether there are parts.
    """
    try:
        yield
    except OSError as error:
        if not is_begun and isinstance(error.__cause__, exceptions.BaseError | FileNotFoundError):
            bucket = "/".join(place.split("/")[:3])
            problem = place_problem(bucket, error.__cause__, endpoint_of(place))
            raise OutputError(f"cannot write {place!r}: {problem}") from error
        reason, kept = error.strerror or str(error), "every finished part is kept there: " if is_begun else ""
        mend = (
            "mend that, then run the same command again" if isinstance(error, RemoteError) else "choose another --out"
        )
        raise OutputError(f"cannot write {place!r}: {reason}; {kept}{mend}") from error
