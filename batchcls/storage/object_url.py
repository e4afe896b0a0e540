"""The URL of one object, with what a program does to it: look, read, write, remove."""

import mmap
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import Any

import pyarrow as pa

from batchcls.errors import OutputError, SlidesError, temporary_files
from batchcls.storage.object_store import RemoteError, object_errors, obstore, open_store
from batchcls.storage.urls import bucket_and_key

_NO_BUCKET = re.compile("NoSuchBucket|ContainerNotFound|bucket does not exist")
"""What stores answer, S3, Azure and Google in this order."""
_ANSWER = re.compile(r":? <| Debug source")
"""Beginning of what follows a store's reason: the page that it answered, and obstore's own state."""


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

    def write(self, content: bytes | memoryview) -> None:
        """Create or replace the object; it is seen whole or not at all."""
        with object_errors(str(self)):
            obstore.put(self.store, self.key, content)

    def local_copy(self) -> pa.Buffer:
        """The content, mapped from a local file that has no name and so vanishes with this process.

        Raises:
            OutputError: If the folder for temporary files is full.
            ValueError: If the object is empty.
        """
        with temporary_files():
            stream = TemporaryFile()  # noqa: SIM115
        with stream:
            for block in self.blocks():
                with temporary_files():
                    stream.write(block)
            with temporary_files():
                stream.flush()
            return pa.py_buffer(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))

    def remove(self) -> None:
        """Remove the object, if there is one."""
        try:
            with object_errors(str(self)):
                obstore.delete(self.store, self.key)
        except FileNotFoundError:  # azure and a local store say so
            pass


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
        reason = _ANSWER.split(error.strerror or str(error))[0]
        mend = (
            "mend that, then run the same command again" if isinstance(error, RemoteError) else "choose another --out"
        )
        if _NO_BUCKET.search(f"{error} {error.__cause__}"):
            bucket = "/".join(place.split("/")[:3])
            reason, mend = f"there is no bucket {bucket!r}", "create it, or choose another --out"
        kept = "every finished part is kept there: " if is_begun else ""
        raise OutputError(f"cannot write {place!r}: {reason}; {kept}{mend}") from error
