"""Reading of groups of objects, many at a time, into memory that is shared with the process that asks for them."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from itertools import count
from time import monotonic, perf_counter, process_time

from batchcls.images.sources.group_buffer import ALONE, GROUP_BYTES, NO_ROOM, NOT_BEGUN, READY, GroupBuffer
from batchcls.images.sources.group_server import Places
from batchcls.images.sources.object_reads import modified_ns, store_and_key
from batchcls.storage.object_store import object_errors, obstore

_MOST_READS = 256
"""Largest number of objects that are read at a time, in all groups together."""
_LEAST_GROUP_READS, _MOST_GROUP_READS = 8, 64
"""Objects of one group that are read at a time: few on a fast network, where more threads cost more, and all of them
where an answer takes long."""
_READS_PER_S = 2_000
"""Reads at a time for each second that an answer takes."""
_LOOK_S = 0.25
"""Seconds between two looks at what takes long."""
_LEAST_PATIENCE_S, _MOST_PATIENCE_S, _PATIENCE = 1.0, 30.0, 8
"""Time that an answer may take before its group is told of it: a multiple of what answers take, within bounds."""
_NEWEST = 0.05
"""Share of the newest answer in the mean of what answers take."""


class ObjectGroups:
    """Reads groups of objects; any thread may call `read`."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_MOST_READS, thread_name_prefix="objects")
        self._lock = threading.Lock()
        self._groups = 0
        """Number of groups that are being read."""
        self.answer_s = 0.01
        """What answers take, in seconds: a mean of the newest ones."""

    def read(self, buffer: GroupBuffer, paths: list[bytes], places: Places, most_bytes: int) -> tuple[float, float]:
        """Read a group, see `batchcls.images.sources.group_server.serve_groups`.

        Returns:
            CPU time and wall time of an object, for all are read at once, so that a smaller group would take no less.
            The CPU time is this group's share in that of the whole process.
        """
        since, cpu_since = perf_counter(), process_time()
        with self._lock:
            self._groups += 1
            groups = self._groups
        group = _Group(self, buffer, paths, most_bytes)
        reads = max(_LEAST_GROUP_READS, min(_MOST_GROUP_READS, int(self.answer_s * _READS_PER_S)))
        pending = {self._pool.submit(group.run) for _ in range(min(reads, len(paths)))}
        while pending := wait(pending, _LOOK_S).not_done:
            if group.look(max(_LEAST_PATIENCE_S, min(_MOST_PATIENCE_S, _PATIENCE * self.answer_s))):
                break
        for read in pending:
            read.cancel()
        with self._lock:
            self._groups -= 1
        group.finish()
        return (process_time() - cpu_since) / groups / len(paths), (perf_counter() - since) / len(paths)

    def note(self, seconds: float) -> None:
        """Take the time of an answer into the mean; any thread may call this method."""
        self.answer_s += _NEWEST * (seconds - self.answer_s)


class _Group:
    """A group that is being read by several threads."""

    def __init__(self, groups: ObjectGroups, buffer: GroupBuffer, paths: list[bytes], most_bytes: int) -> None:
        self._groups = groups
        self._buffer = buffer
        self._paths = paths
        self._most_bytes = most_bytes
        self._numbers = count()
        self._lock = threading.Lock()
        self._used_bytes = 0
        self._ended = False
        self._begun: dict[int, float] = {}
        """Monotonic time at which each object's reading began, by position; until its end."""
        self._records = [(ALONE, 0, 0, 0)] * len(paths)

    def run(self) -> None:
        """Read one object after another, until all have been begun; runs in several threads."""
        while not self._ended and (number := next(self._numbers)) < len(self._paths):
            since = self._begun[number] = monotonic()
            try:
                with suppress(OSError, MemoryError):  # the error that counts is that of reading the object alone
                    self._records[number] = self._read(os.fsdecode(self._paths[number]))
                    self._groups.note(monotonic() - since)
            finally:
                del self._begun[number]

    def look(self, patience_s: float) -> bool:
        """Tell which object takes long, if one does; whether the group has been cut, and no more is to be read."""
        progress = self._buffer.progress
        if progress[1] < len(self._paths):
            self._ended = True
            return True
        long_since = monotonic() - patience_s
        progress[0] = min(
            (number for number, since in list(self._begun.items()) if since < long_since), default=NOT_BEGUN
        )
        return False

    def finish(self) -> None:
        """Write what has become of the objects."""
        self._ended = True
        self._buffer.write_places(list(self._records), len(self._paths))

    def _read(self, url: str) -> tuple[int, int, int, int]:
        """State, offset, length and time of an object."""
        with object_errors(url):
            store, key = store_and_key(url)
            result = obstore.get(store, key)
            meta = result.meta
            size = meta["size"]
            if not 0 < size <= self._most_bytes:
                return ALONE, 0, 0, 0
            offset = self._room(size)
            if offset is None:
                return NO_ROOM, 0, 0, 0
            data = result.bytes()
            time_ns = modified_ns(meta["last_modified"])
            if len(data) != size or self._ended or not time_ns:
                return ALONE, 0, 0, 0
            self._buffer.data[offset : offset + size] = memoryview(data)
            return READY, offset, size, time_ns

    def _room(self, size: int) -> int | None:
        """Offset of so much unused memory; None if there is none left."""
        with self._lock:
            offset = self._used_bytes
            if offset + size > GROUP_BYTES:
                return None
            self._used_bytes += size
            return offset
