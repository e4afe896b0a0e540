"""Peak memory of a process and its descendants, measured from outside."""

from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import Self

from benchmarks.processes import with_descendants

_INTERVAL_S = 0.5


class MemoryWatch:
    """A context manager that records the peak memory of a process while it is open.

    For a process without children this is the kernel's high-water mark (VmHWM). With children it is the largest sum
    that was sampled, in which shared pages are counted once (PSS).
    """

    def __init__(self, pid: int) -> None:
        self.peak_bytes = 0
        """Peak memory up to now."""
        self._pid = pid
        self._closed = Event()
        self._thread = Thread(target=self._poll, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join()

    def _poll(self) -> None:
        while not self._closed.wait(_INTERVAL_S):
            processes = with_descendants(self._pid)
            alone = _kilobytes(self._pid, "status", "VmHWM")
            together = sum(_kilobytes(pid, "smaps_rollup", "Pss") for pid in processes) if len(processes) > 1 else 0
            self.peak_bytes = max(self.peak_bytes, alone << 10, together << 10)


def _kilobytes(pid: int, file: str, key: str) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1])
    return 0
