"""The index of an unfinished output in an object store, as one run holds it."""

from batchcls.errors import OutputError
from batchcls.storage.guarded_object import GuardedObject
from batchcls.storage.object_lock import ObjectLock
from batchcls.storage.object_url import ObjectUrl
from batchcls.storage.part_index import PartIndex

LARGEST_NOTE_BYTES = 64 << 20
"""Largest size of an index, and of a note on a run."""
_MOST_PARTS = 10**8
_TIMES = 8
"""Times that an index is taken over from a run that is still writing, before something else must be wrong."""


class OwnIndex:
    """The index, which only the run that took it over last can replace.

    Attributes:
        content: The index as this run took it over, or wrote it last.
        serial: Number of times that this run has written the index.

    Args:
        url: Object of the index.
        lock: Lock of the output, which this run holds.
    """

    def __init__(self, url: ObjectUrl, lock: ObjectLock) -> None:
        self._object, self._lock = GuardedObject(url), lock
        self.content, self.serial = PartIndex(), 0

    def take_over(self) -> None:
        """Make the index this run's, so that no earlier run can change it.

        Raises:
            OutputError: If it cannot be read, or another run has the lock.
            OSError: If the store fails.
        """
        for _ in range(_TIMES):
            content = self._object.read(LARGEST_NOTE_BYTES)
            try:
                index = PartIndex() if content is None else PartIndex.from_json(content, _MOST_PARTS)
            except ValueError as error:
                raise OutputError(
                    f"{str(self._object.url)!r} cannot be read: {error}; start over by removing it"
                ) from error
            if self._write(index):
                return
        raise self._lock.loss()

    def replace(self, content: PartIndex) -> None:
        """Write another index.

        Raises:
            OutputError: If another run has taken over.
            OSError: If the store fails.
        """
        if not self._write(content):
            raise self._lock.loss()

    def remove(self) -> None:
        """Remove the index.

        Raises:
            OSError: If the store fails.
        """
        self._object.remove()

    def _write(self, content: PartIndex) -> bool:
        self.serial += 1
        if not self._object.write(content.to_json(self._lock.token, self.serial)):
            return False
        self.content = content
        return True
