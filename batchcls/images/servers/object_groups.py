"""Reading of groups of objects, many at a time, into memory that is shared with the process that asks for them."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from time import monotonic, perf_counter, process_time

from batchcls.images.servers.group_buffer import ALONE, GROUP_BYTES, NO_ROOM, NOT_BEGUN, READY, GroupBuffer
from batchcls.images.servers.group_server import Places
from batchcls.images.servers.object_reads import modified_ns, store_and_key
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
_CUT_S = 3.0
"""Further time after which the group is ended as it is; usually it has been cut before."""
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
        """Mean time of the newest answers, in seconds."""
        self.object_bytes = 20e3
        """Size of objects: a mean of the newest ones."""

    def read(self, buffer: GroupBuffer, paths: list[bytes], places: Places, most_bytes: int) -> tuple[float, float]:
        """Read a group, see `batchcls.images.servers.group_server.serve_groups`.

        Returns:
            CPU time and wall time of an object, for all are read at once, so that a smaller group would take no less.
            The CPU time is this group's share in that of the whole process.
        """
        since, cpu_since = perf_counter(), process_time()
        with self._lock:
            self._groups += 1
            groups = self._groups
        group = _Group(self, buffer, paths, [size for _, _, size in places], most_bytes)
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

    def note(self, seconds: float, size_bytes: int) -> None:
        """Take the time of an answer, and the size of the object, into the means; any thread may call this method."""
        self.answer_s += _NEWEST * (seconds - self.answer_s)
        self.object_bytes += _NEWEST * (size_bytes - self.object_bytes)


class _Group:
    """A group that is being read by several threads.

    Objects that are known to be too large are not asked for, and neither are those for which there will be no room.
    """

    def __init__(
        self, groups: ObjectGroups, buffer: GroupBuffer, paths: list[bytes], sizes: list[int], most_bytes: int
    ) -> None:
        self._groups = groups
        self._buffer = buffer
        self._paths = paths
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._used_bytes = 0
        self._ended = False
        self._begun: dict[int, float] = {}
        """Monotonic time at which each object's reading began, by position; until its end."""
        self._records = [(NO_ROOM, 0, 0, 0)] * len(paths)
        self._numbers = iter(self._planned(sizes))
        """Positions of the objects to read that have not been begun."""

    def _planned(self, sizes: list[int]) -> list[int]:
        """Positions of the objects to read, by the sizes that are known of them; 0 where they are not."""
        numbers: list[int] = []
        room = float(GROUP_BYTES)
        for number, size in enumerate(sizes):
            if size > self._most_bytes:
                self._records[number] = (ALONE, 0, 0, 0)
                continue
            room -= size or min(self._groups.object_bytes, self._most_bytes)
            if room < 0 and numbers:
                break
            numbers.append(number)
        return numbers

    def run(self) -> None:
        """Read one object after another, until all have been begun; runs in several threads."""
        while not self._ended and (number := next(self._numbers, None)) is not None:
            self._begun[number] = monotonic()
            record = (ALONE, 0, 0, 0)
            with suppress(OSError, MemoryError):  # the error that counts is that of reading the object alone
                record = self._read(os.fsdecode(self._paths[number]))
            if not self._ended:
                self._records[number] = record
            since = self._begun.pop(number)
            self._groups.note(monotonic() - since, record[2] or int(self._groups.object_bytes))

    def look(self, patience_s: float) -> bool:
        """Tell which object takes long, if one does; whether the group has been cut, and no more is to be read."""
        progress = self._buffer.progress
        now = monotonic()
        longest_s = now - min(list(self._begun.values()), default=now)
        if progress[1] < len(self._paths) or longest_s > patience_s + _CUT_S:
            self._ended = True
            return True
        long_since = now - patience_s
        progress[0] = min(
            (number for number, since in list(self._begun.items()) if since < long_since), default=NOT_BEGUN
        )
        return False

    def finish(self) -> None:
        """Write what has become of the objects; one that is still being read is left to be read alone."""
        with self._lock:
            self._ended = True
        for number in list(self._begun):
            self._records[number] = (ALONE, 0, 0, 0)
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
            with self._lock:  # once the group has ended, the memory is another one's
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
