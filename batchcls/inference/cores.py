"""The CPU cores near a GPU, and how processes share cores."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

SYSFS = Path("/sys")
_NODE_FOLDERS = "devices/system/node/node[0-9]*"
_RANGE = re.compile(r"(\d+)(?:-(\d+))?", re.ASCII)


def near_cores(pci_address: str | None, allowed: frozenset[int], sysfs: Path = SYSFS) -> frozenset[int]:
    """The allowed cores on the NUMA node of a PCI device.

    All allowed cores where the machine has a single node, does not tell the device's cores, or allows none of them.

    Args:
        pci_address: Address such as ``0000:3b:00.0``; None if it is not known.
        allowed: Cores that the run may use.
        sysfs: Folder where the kernel tells of the machine.

    Source: the kernel's Documentation/ABI/testing/sysfs-bus-pci, local_cpulist.
    """
    if pci_address is None or len(list(sysfs.glob(_NODE_FOLDERS))) < 2:
        return allowed
    try:
        text = (sysfs / "bus/pci/devices" / pci_address / "local_cpulist").read_text()
    except OSError:
        return allowed
    return listed_cores(text) & allowed or allowed


def listed_cores(text: str) -> frozenset[int]:
    """The cores in a list such as ``0-3,8,10-11``; none if ``text`` is anything else.

    Source: the kernel's Documentation/admin-guide/cputopology.rst.
    """
    ranges = [_RANGE.fullmatch(item) for item in text.strip().split(",")]
    if not all(ranges):
        return frozenset()
    return frozenset(core for item in ranges if item for core in range(int(item[1]), int(item[2] or item[1]) + 1))


def shared_threads(processes: Sequence[frozenset[int]]) -> list[int]:
    """The threads of each process that shares each of its cores with the other processes on it; at least one.

    Args:
        processes: Cores of each process.
    """
    users = Counter(core for cores in processes for core in cores)
    return [max(1, int(sum(1 / users[core] for core in cores) + 1e-9)) for cores in processes]
