"""How much memory may be taken, and who has it: what a run reads and decodes stays within one budget."""

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
"""One part of so many is for files that wait to be decoded, the others are for what they become."""
_SHARE = 0.5
"""Of what is available, what a run takes that was not told how much it may."""
_V2 = ("memory.max", "memory.current", "inactive_file")
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
"""Files of a control group: its limit, and what it has taken; and in memory.stat, the cache that it gives back."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""Options of mallopt(3)."""
_LARGE_BYTES = 12 << 20
_ARENAS = 2
_STACK_BYTES = 1 << 20
_SIGNS = re.compile(r"memory|alloc|decoder error -9", re.IGNORECASE)
"""How libraries say in a text that there was not enough; -9 is Pillow's code for it."""


def text_of(size_bytes: int) -> str:
    """Such as ``--memory`` takes it; rounded up."""
    unit, letter = (1 << 30, "G") if size_bytes >= 10 << 30 else (1 << 20, "M")
    return f"{-(-size_bytes // unit)}{letter}"


class Memory(Protocol):
    """Lends memory for a while."""

    @property
    def size_bytes(self) -> int:
        """All that it has."""

    def lent(self, size_bytes: int) -> AbstractContextManager[None]:
        """Inside, so much is the caller's; entering waits until there is."""


class Pool:
    """A `Memory` of ``size_bytes``, lent first come first served; who has some must not ask for more."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self._free_bytes = size_bytes
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def lent(self, size_bytes: int) -> Iterator[None]:
        """As `Memory.lent`; more than there is at all is lent when everything is there."""
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
    def alone(self) -> Iterator["Granted"]:
        """Inside, nobody else has any of it."""
        with self.lent(self.size_bytes):
            yield Granted(self.size_bytes)


class Granted:
    """The `Memory` of someone who has all of it already."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes

    def lent(self, size_bytes: int) -> AbstractContextManager[None]:
        return nullcontext()


def speaks_of_memory(error: BaseException) -> bool:
    """Whether a library failed for want of memory, as far as it says so."""
    return isinstance(error, MemoryError) or _SIGNS.search(str(error)) is not None


def can_be_taken(size_bytes: int) -> bool:
    """Whether there is so much at this moment: in the address space, and of what processes may have resident."""
    try:
        mmap.mmap(-1, max(1, size_bytes)).close()
    except (OSError, MemoryError, OverflowError):
        return False
    return available_bytes() >= size_bytes


def needed_to_read(size_bytes: int) -> int:
    """What a decoder's memory has to be, for a file of so many bytes."""
    return size_bytes * READ_PART


def needed_to_decode(cost_bytes: int) -> int:
    """What a decoder's memory has to be, for an image of such a cost."""
    return -(-cost_bytes * READ_PART // (READ_PART - 1))


def default_bytes() -> int:
    """What a run may have in all that was not told: what it has, and half of what is available."""
    return resident_bytes() + int(_SHARE * available_bytes())


def available_bytes() -> int:
    """What this process may still take: the least that the machine, its control groups and its limits leave."""
    (machine,) = _of_proc("/proc/meminfo", "MemAvailable") or [1 << 62]
    return max(0, min(machine, *_left_in_groups(), *_left_of_limits()))


def capacity_bytes() -> int:
    """What this process could take if nothing were taken: the least that machine, control groups and limits allow."""
    (machine,) = _of_proc("/proc/meminfo", "MemTotal") or [1 << 62]
    return min(machine, *(limit for _, limit, _ in _limited_groups()), *_limits().values())


def resident_bytes() -> int:
    """What this process has resident."""
    return sum(_of_proc("/proc/self/status", "VmRSS"))


def use_sparingly() -> None:
    """Have what large images took given back at once, and take little address space for threads where it is limited.

    Call this before threads start and Arrow is loaded. A thread's stack takes 8 MiB of address space, each of glibc's
    heaps for threads 64 MiB, and Arrow's own allocator 1 GiB, used or not; and by itself glibc keeps in its heaps what
    pieces of up to 32 MiB took, Pillow's are of 16.
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
    """This process's own limits, by the line of its status that says what it has of each."""
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
    """The control groups that this process is in, up to the outermost one that can be seen, and their limits."""
    for folder, mount, files in _groups():
        while folder.is_relative_to(mount):
            if (limit := _number(folder / files[0])) is not None:
                yield folder, limit, files
            folder = folder.parent


def _groups() -> Iterator[tuple[Path, Path, tuple[str, str, str]]]:
    """This process's control groups of memory: folder, where their file system is mounted, and what files are called.

    Source: cgroups(7), proc_pid_mountinfo(5). In a container the folder may lie outside of what is mounted: then its
    own limits are those of the mount's root.
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
    """What a file says; None where it is not there, or sets no limit."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _of_statistics(folder: Path, key: str) -> int:
    return sum(int(line.split()[1]) for line in _lines(str(folder / "memory.stat")) if line.split()[0] == key)


def _of_proc(path: str, key: str) -> list[int]:
    """Bytes, of a line such as ``VmRSS: 12 kB``; empty where there is none."""
    return [int(line.split()[1]) << 10 for line in _lines(path) if line.startswith(key + ":")]
