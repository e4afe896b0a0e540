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
"""Divisor of a decoder's budget: a quarter holds files that wait to be decoded, the rest is for decoding."""
_DEFAULT_FRACTION = 0.5
"""Fraction of the available memory that a run takes by default."""
_CGROUP_V2_NAMES = ("memory.max", "memory.current", "inactive_file")
_CGROUP_V1_NAMES = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
"""Names in a control group: the files of its limit and its usage, and the key of reclaimable cache in memory.stat."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""Options of mallopt(3)."""
_LARGE_BYTES = 12 << 20
"""Size from which malloc gives an allocation a mapping of its own, which returns to the system when freed."""
_ARENAS = 2
"""Most heaps that glibc makes for threads, where address space is limited."""
_STACK_BYTES = 1 << 20
"""Stack of a thread, where address space is limited."""
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
        """A context in which ``size_bytes`` belong to the caller; entering it waits until so much is free."""


class MemoryPool:
    """A `Memory` of ``size_bytes``, lent in the order of requests; whoever holds a lease must not ask for another."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self._free_bytes = size_bytes
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def lease(self, size_bytes: int) -> Iterator[None]:
        """A context in which ``size_bytes``, or the whole budget if that is less, belong to the caller."""
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
        """A context in which the whole budget belongs to the caller; entering it waits until all leases have ended."""
        with self.lease(self.size_bytes):
            yield GrantedMemory(self.size_bytes)


class GrantedMemory:
    """A `Memory` whose only user holds the whole budget already, so that leases never wait."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes

    def lease(self, size_bytes: int) -> AbstractContextManager[None]:
        return nullcontext()


def is_memory_error(error: BaseException) -> bool:
    """Whether an error of a library reports a shortage of memory."""
    return isinstance(error, MemoryError) or _SHORTAGE_WORDS.search(str(error)) is not None


def can_allocate(size_bytes: int) -> bool:
    """Whether ``size_bytes`` are free at this moment, both of address space and of resident memory."""
    try:
        mmap.mmap(-1, max(1, size_bytes)).close()
    except (OSError, MemoryError, OverflowError):
        return False
    return available_bytes() >= size_bytes


def read_budget_bytes(size_bytes: int) -> int:
    """The decoder's budget, in bytes, that reading a file of ``size_bytes`` needs."""
    return size_bytes * READ_PART


def decode_budget_bytes(cost_bytes: int) -> int:
    """The decoder's budget, in bytes, that decoding an image needs which takes ``cost_bytes`` itself."""
    return -(-cost_bytes * READ_PART // (READ_PART - 1))


def default_budget_bytes() -> int:
    """The default budget of a run: this process's resident memory, and half of the available memory."""
    return resident_bytes() + int(_DEFAULT_FRACTION * available_bytes())


def available_bytes() -> int:
    """Bytes that this process may still take: the least that the machine, a control group or a limit leaves."""
    (machine,) = _proc_bytes("/proc/meminfo", "MemAvailable") or [1 << 62]
    return max(0, min(machine, *_left_in_cgroups(), *_left_of_limits()))


def capacity_bytes() -> int:
    """Bytes that this process could take in all: the least that the machine, a control group or a limit allows."""
    (machine,) = _proc_bytes("/proc/meminfo", "MemTotal") or [1 << 62]
    return min(machine, *(limit for _, limit, _ in _limited_cgroups()), *_limits().values())


def resident_bytes() -> int:
    """Resident memory of this process."""
    return sum(_proc_bytes("/proc/self/status", "VmRSS"))


def limit_memory_use() -> None:
    """Make malloc return the memory of large images at once, and threads take little of a limited address space.

    Call this before threads start, and NumPy and Arrow are loaded. By default a thread's stack takes 8 MiB of address
    space, each of glibc's heaps for threads 64 MiB, Arrow's own allocator 1 GiB, and NumPy a thread for each core, used
    or not; and glibc keeps freed allocations of up to 32 MiB in its heaps. Pillow allocates 16 MiB at a time.
    """
    limited = resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY
    if limited:
        threading.stack_size(_STACK_BYTES)
        os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with suppress(AttributeError):  # a C library without mallopt
        set_option = ctypes.CDLL(None).mallopt
        set_option(_MMAP_THRESHOLD, _LARGE_BYTES)
        set_option(_TRIM_THRESHOLD, 2 * _LARGE_BYTES)
        if limited:
            set_option(_ARENA_MAX, _ARENAS)


def _limits() -> dict[str, int]:
    """This process's resource limits in bytes, by the key of the usage in /proc/self/status."""
    kinds = {"VmSize": resource.RLIMIT_AS, "VmData": resource.RLIMIT_DATA}
    limits = {name: resource.getrlimit(kind)[0] for name, kind in kinds.items()}
    return {name: limit for name, limit in limits.items() if limit != resource.RLIM_INFINITY}


def _left_of_limits() -> list[int]:
    """Bytes that each resource limit leaves this process."""
    return [limit - sum(_proc_bytes("/proc/self/status", name)) for name, limit in _limits().items()]


def _left_in_cgroups() -> Iterator[int]:
    """Bytes that each control group leaves this process, with reclaimable cache counted as free."""
    for folder, limit, (_, usage_file, cache) in _limited_cgroups():
        if (usage := _number(folder / usage_file)) is not None:
            yield limit - usage + _cgroup_statistic(folder, cache)


def _limited_cgroups() -> Iterator[tuple[Path, int, tuple[str, str, str]]]:
    """This process's control groups with a memory limit, innermost first: folder, limit in bytes, and file names."""
    for folder, mount, files in _memory_cgroups():
        while folder.is_relative_to(mount):
            if (limit := _number(folder / files[0])) is not None:
                yield folder, limit, files
            folder = folder.parent


def _memory_cgroups() -> Iterator[tuple[Path, Path, tuple[str, str, str]]]:
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
        yield Path(mount) / below, Path(mount), _CGROUP_V2_NAMES if kind == "cgroup2" else _CGROUP_V1_NAMES


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


def _cgroup_statistic(folder: Path, key: str) -> int:
    """The bytes in the line of a control group's memory.stat with this key; 0 if there is no such line."""
    return sum(int(line.split()[1]) for line in _lines(str(folder / "memory.stat")) if line.split()[0] == key)


def _proc_bytes(path: str, key: str) -> list[int]:
    """Bytes in lines such as ``VmRSS: 12 kB`` with this key; empty if there is no such line."""
    return [int(line.split()[1]) << 10 for line in _lines(path) if line.startswith(key + ":")]
