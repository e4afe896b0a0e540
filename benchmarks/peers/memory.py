"""How much memory a process and all that it starts hold at most, seen from outside."""

import os
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import Self

_EVERY_S = 0.5


class Watch:
    """Looks at a process while it is open.

    A process alone is told by the kernel's own high-water mark. With its children it is the largest sum that was met,
    pages that they share counted once (PSS).
    """

    def __init__(self, pid: int) -> None:
        self.peak_bytes = 0
        self._pid = pid
        self._over = Event()
        self._thread = Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(_EVERY_S):
            processes = _with_children(self._pid)
            alone = _kilobytes(self._pid, "status", "VmHWM")
            together = sum(_kilobytes(pid, "smaps_rollup", "Pss") for pid in processes) if len(processes) > 1 else 0
            self.peak_bytes = max(self.peak_bytes, alone << 10, together << 10)


def _with_children(pid: int) -> list[int]:
    found = [pid]
    for parent in found:  # which grows on the way
        with suppress(OSError):
            for task in os.listdir(f"/proc/{parent}/task"):
                found += map(int, Path(f"/proc/{parent}/task/{task}/children").read_text().split())
    return found


def _kilobytes(pid: int, file: str, key: str) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1])
    return 0
