"""Names of processes, by which another process of the same machine learns that one has ended."""

import os
from pathlib import Path


def process_name() -> str:
    """A name of this process that no other has: kernel, PID namespace, number, and time of its start; empty if unknown.

    Containers on one machine share a kernel but no namespace, and numbers are used again.
    """
    place = _place()
    started = _started(os.getpid())
    return f"{place}/{os.getpid()}/{started}" if place and started else ""


def has_ended(name: str) -> bool:
    """Whether the process of that name ran here and is gone; False for one of another machine or container."""
    place, _, rest = name.rpartition("/")[0].rpartition("/")
    number, started = rest, name.rpartition("/")[2]
    if not number.isdecimal() or not started or not place or place != _place():
        return False
    return _started(int(number)) != started


def _place() -> str:
    """The running kernel and the namespace of this process's number; empty if the system does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return ""
    return f"{boot}/{namespace}" if boot else ""


def _started(number: int) -> str:
    """The time, in the kernel's own unit, at which a process started; empty if there is no such process, or it is dead.

    A killed process whose parent has not asked for its end is dead, too.
    """
    try:
        fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in ("Z", "X") else fields[19]
