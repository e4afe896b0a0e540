"""A reader of groups for slides that are read one at a time."""

import os
from collections.abc import Sequence

from batchcls.images.sources.base import GroupResult
from batchcls.records import Slide

NO_BUFFER_BYTES = 1
"""Memory of a group of which nothing is read, because a budget must take something."""


class AloneGroupReader:
    """A `batchcls.images.sources.base.GroupReader` that leaves every slide to be read alone."""

    times_s = (0.01, 0.01)
    """As if a group took one core, so that no second one is opened beside it."""

    def __init__(self) -> None:
        self._ready = os.eventfd(0)
        self._slides: Sequence[Slide] = ()

    def fileno(self) -> int:
        return self._ready

    def start(self, slides: Sequence[Slide], largest_bytes: int) -> None:
        self._slides = slides
        os.eventfd_write(self._ready, 1)

    def position(self) -> int | None:
        return None

    def cut(self, position: int) -> None:
        """Nothing is read here."""

    def result(self) -> GroupResult:
        os.eventfd_read(self._ready)
        return GroupResult([], list(self._slides), [])

    def close(self) -> None:
        if self._ready >= 0:
            os.close(self._ready)
            self._ready = -1
