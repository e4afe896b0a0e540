"""An object that a process replaces only while it is as that process left it: the store's own compare and swap."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from batchcls.errors import OutputError
from batchcls.storage.object_store import exceptions, object_errors, obstore
from batchcls.storage.object_url import ObjectUrl, patiently


class UnguardedStoreError(OutputError):
    """A store that replaces objects whatever condition a request names, so that two runs could spoil one file."""

    def __init__(self, bucket: str) -> None:
        super().__init__(
            f"the store of {bucket!r} does not keep to conditions of requests (If-None-Match, If-Match), without which "
            "two runs could write one output; write to a disk, and copy the whole file"
        )


class _TooLargeError(OSError):
    """An object that is larger than what this program writes there."""


class GuardedObject:
    """An object that is created, and replaced, only if no other process did so since this one last read or wrote it.

    Two contents must never be equal, for by its content a process knows a write whose answer was lost as its own.
    """

    def __init__(self, url: ObjectUrl) -> None:
        self.url = url
        self.version: Any = None
        """The version that this process read or wrote last; None if it knows of no object."""

    def read(self, largest_bytes: int) -> bytes | None:
        """The content; None if there is no object.

        Raises:
            OSError: If the store fails, or the object has more than ``largest_bytes``.
        """
        self.version = None
        try:
            with object_errors(str(self.url)):
                answer = obstore.get(self.url.store, self.url.key)
                if answer.meta["size"] > largest_bytes:
                    raise _TooLargeError(f"{str(self.url)!r} has {answer.meta['size']:,} bytes")
                content = bytes(answer.bytes())
        except FileNotFoundError:
            return None
        self.version = _version(answer.meta)
        return content

    def write(self, content: bytes) -> bool:
        """Replace the object, or create it, patiently; returns whether that was done, or another process was quicker.

        Raises:
            FileNotFoundError: If there is no such bucket.
            OSError: If the store fails.
            UnguardedStoreError: If the store offers no conditions.
        """
        return patiently(lambda: self._write(content))

    def _write(self, content: bytes) -> bool:
        try:
            with object_errors(str(self.url)):
                try:
                    answer = obstore.put(
                        self.url.store, self.url.key, content, mode=self.version or "create", use_multipart=False
                    )
                except (exceptions.AlreadyExistsError, exceptions.PreconditionError):
                    return self._is_written(content)
                except (NotImplementedError, exceptions.NotSupportedError) as error:
                    raise UnguardedStoreError(self.url.bucket) from error
        except FileNotFoundError:
            if self.version is None:
                raise
            return False  # S3's answer where the object to replace is gone
        self.version = _version(answer)
        return True

    def refuses(self, version: Any) -> bool:
        """Whether the store refuses to replace the object under a condition that does not hold, as it must.

        Args:
            version: A version that the object no longer has; or ``create``, for an object that exists.

        Raises:
            OSError: If the store fails.
        """
        with object_errors(str(self.url)):
            try:
                obstore.put(self.url.store, self.url.key, b"{}", mode=version, use_multipart=False)
            except (exceptions.AlreadyExistsError, exceptions.PreconditionError):
                return True
        return False

    def remove(self) -> None:
        """Remove the object, whoever wrote it: no store removes under a condition.

        Raises:
            OSError: If the store fails.
        """
        self.url.remove()
        self.version = None

    def _is_written(self, content: bytes) -> bool:
        """Whether the object holds what this process was to write: a request whose answer is lost is sent again."""
        version = self.version
        with suppress(_TooLargeError):
            if self.read(len(content)) == content:
                return True
        self.version = version
        return False


def _version(answer: Mapping[str, Any]) -> dict[str, Any]:
    """The version that a store told, as a condition of the next request."""
    return {key: answer[key] for key in ("e_tag", "version") if answer[key] is not None}
