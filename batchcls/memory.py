"""How much memory this process may use, and a budget that the parts of a run share."""

import ctypes
import mmap
import os
import re
import resource
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Protocol

READ_PART = 4
"""Divisor of a decoder's memory: one part of four holds files that wait to be decoded, the rest is for decoding."""
_SHARE = 0.5
"""Fraction of the available memory that a run takes by default."""
_V2 = ("memory.max", "memory.current", "inactive_file")
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
"""Names in a control group: the files of its limit and its usage, and the key of reclaimable cache in memory.stat."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""Options of mallopt(3)."""
_LARGE_BYTES = 12 << 20
"""Size from which malloc maps a piece by itself, and so gives it back when it is freed."""
_ARENAS = 2
"""Heaps that glibc makes for threads, where address space is limited."""
_STACK_BYTES = 1 << 20
_SHORTAGE_WORDS = re.compile(r"memory|alloc|decoder error -9", re.IGNORECASE)
"""Words of libraries' messages about a shortage of memory; -9 is Pillow's code for it."""


def format_bytes(size_bytes: int) -> str:
    """A size as ``--memory`` takes it, such as ``1500M``; rounded up."""
    unit, letter = (1 << 30, "G") if size_bytes >= 10 << 30 else (1 << 20, "M")
    return f"{-(-size_bytes // unit)}{letter}"


class Memory(Protocol):
    """A budget of memory, parts of which are lent for a while."""

    @property
    def size_bytes(self) -> int:
        """The whole budget."""

    def lease(self, size_bytes: int) -> AbstractContextManager[None]:
        """Within this context ``size_bytes`` belong to the caller; entering waits until they are free."""


class MemoryPool:
    """A `Memory` of ``size_bytes``, lent in the order of requests; whoever holds a lease must not ask for another."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self._free_bytes = size_bytes
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def lease(self, size_bytes: int) -> Iterator[None]:
        """As `Memory.lease`; a request for more than the whole budget is granted the whole budget."""
        size_bytes = min(size_bytes, self.size_bytes)
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            try:
                self._changed.wait_for(lambda: self._waiting[0] is ticket and size_bytes <= self._free_bytes)
                self._free_bytes -= size_bytes
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._free_bytes += size_bytes
                self._changed.notify_all()

    @contextmanager
    def lease_all(self) -> Iterator["GrantedMemory"]:
        """Within this context the caller has the whole budget."""
        with self.lease(self.size_bytes):
            yield GrantedMemory(self.size_bytes)


class GrantedMemory:
    """A `Memory` whose only user holds the whole budget already, so that leases never wait."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes

    def lease(self, size_bytes: int) -> AbstractContextManager[None]:
        return nullcontext()


def is_memory_error(error: BaseException) -> bool:
    """Whether a library's error says that there was too little memory."""
    return isinstance(error, MemoryError) or _SHORTAGE_WORDS.search(str(error)) is not None


def can_be_taken(size_bytes: int) -> bool:
    """Whether ``size_bytes`` are free at this moment, both of address space and of resident memory."""
    try:
        mmap.mmap(-1, max(1, size_bytes)).close()
    except (OSError, MemoryError, OverflowError):
        return False
    return available_bytes() >= size_bytes


def needed_to_read(size_bytes: int) -> int:
    """The decoder's budget that reading a file of ``size_bytes`` needs."""
    return size_bytes * READ_PART


def needed_to_decode(cost_bytes: int) -> int:
    """The decoder's budget that decoding an image with a cost of ``cost_bytes`` needs."""
    return -(-cost_bytes * READ_PART // (READ_PART - 1))


def default_bytes() -> int:
    """The default budget of a run: what the process has resident, and half of what is available."""
    return resident_bytes() + int(_SHARE * available_bytes())


def available_bytes() -> int:
    """Bytes that this process may still take: the least of what the machine, control groups and limits leave."""
    (machine,) = _of_proc("/proc/meminfo", "MemAvailable") or [1 << 62]
    return max(0, min(machine, *_left_in_groups(), *_left_of_limits()))


def capacity_bytes() -> int:
    """Bytes that this process could take in all: the least of what the machine, control groups and limits allow."""
    (machine,) = _of_proc("/proc/meminfo", "MemTotal") or [1 << 62]
    return min(machine, *(limit for _, limit, _ in _limited_groups()), *_limits().values())


def resident_bytes() -> int:
    """Bytes that this process has resident."""
    return sum(_of_proc("/proc/self/status", "VmRSS"))


def limit_memory_use() -> None:
    """Make malloc return the memory of large images at once, and threads take little of a limited address space.

    Call this before threads start and Arrow is loaded. By default a thread's stack takes 8 MiB of address space, each
    of glibc's heaps for threads 64 MiB, and Arrow's own allocator 1 GiB, used or not; and glibc keeps freed pieces of
    up to 32 MiB in its heaps. Pillow's pieces are of 16 MiB.
    """
    limited = resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY
    if limited:
        threading.stack_size(_STACK_BYTES)
        os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    with suppress(AttributeError):  # a C library without this
        set_option = ctypes.CDLL(None).mallopt
        set_option(_MMAP_THRESHOLD, _LARGE_BYTES)
        set_option(_TRIM_THRESHOLD, 2 * _LARGE_BYTES)
        if limited:
            set_option(_ARENA_MAX, _ARENAS)


def _limits() -> dict[str, int]:
    """This process's resource limits in bytes, by the line of /proc/self/status that tells the usage."""
    kinds = {"VmSize": resource.RLIMIT_AS, "VmData": resource.RLIMIT_DATA}
    limits = {name: resource.getrlimit(kind)[0] for name, kind in kinds.items()}
    return {name: limit for name, limit in limits.items() if limit != resource.RLIM_INFINITY}


def _left_of_limits() -> list[int]:
    return [limit - sum(_of_proc("/proc/self/status", name)) for name, limit in _limits().items()]


def _left_in_groups() -> Iterator[int]:
    for folder, limit, (_, usage_file, cache) in _limited_groups():
        if (usage := _number(folder / usage_file)) is not None:
            yield limit - usage + _of_statistics(folder, cache)


def _limited_groups() -> Iterator[tuple[Path, int, tuple[str, str, str]]]:
    """This process's control groups with a limit of memory, innermost first: folder, bytes, names of their files."""
    for folder, mount, files in _groups():
        while folder.is_relative_to(mount):
            if (limit := _number(folder / files[0])) is not None:
                yield folder, limit, files
            folder = folder.parent


def _groups() -> Iterator[tuple[Path, Path, tuple[str, str, str]]]:
    """This process's control groups of memory: folder, mount point of their file system, and names of their files.

    Source: cgroups(7), proc_pid_mountinfo(5). In a container the folder may lie outside the mounted part: then the
    mount's root holds the limits.
    """
    paths = {}
    for line in _lines("/proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if not controllers or "memory" in controllers.split(","):
            paths["cgroup" if controllers else "cgroup2"] = path
    for line in _lines("/proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind not in paths or (kind == "cgroup" and "memory" not in options.split(",")):
            continue
        root, mount = before.split(" ")[3:5]
        inside = Path(paths[kind])
        below = inside.relative_to(root) if inside.is_relative_to(root) else Path()
        yield Path(mount) / below, Path(mount), _V2 if kind == "cgroup2" else _V1


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(errors="surrogateescape").splitlines()
    except OSError:
        return []


def _number(path: Path) -> int | None:
    """The number in a file; None if there is no file, or no limit in it."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _of_statistics(folder: Path, key: str) -> int:
    return sum(int(line.split()[1]) for line in _lines(str(folder / "memory.stat")) if line.split()[0] == key)


def _of_proc(path: str, key: str) -> list[int]:
    """Bytes in lines such as ``VmRSS: 12 kB`` with this key; empty if there is no such line."""
    return [int(line.split()[1]) << 10 for line in _lines(path) if line.startswith(key + ":")]
