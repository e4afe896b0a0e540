"""Processes and their CPU time, as the kernel counts them."""

import os
import resource
from contextlib import suppress
from pathlib import Path

_CPU_FIELDS = slice(11, 15)
"""utime, stime, cutime and cstime in /proc/PID/stat, counted from the field behind the command's name."""


def with_descendants(pid: int) -> list[int]:
    """A process and all processes below it that are running."""
    processes = [pid]
    for parent in processes:  # the list grows during the loop
        with suppress(OSError):
            for task in os.listdir(f"/proc/{parent}/task"):
                processes += map(int, Path(f"/proc/{parent}/task/{task}/children").read_text().split())
    return processes


def cpu_seconds() -> float:
    """CPU time of this process and of all processes that it has started, in seconds.

    Processes that have ended count to the microsecond; those that are running count in ticks, usually of 10 ms.
    """
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    ended = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    return ended + sum(map(_running_cpu_seconds, with_descendants(os.getpid())[1:]))


def _running_cpu_seconds(pid: int) -> float:
    """CPU time of a running process and of its children that have ended."""
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[_CPU_FIELDS])) / os.sysconf("SC_CLK_TCK")
    return 0.0
