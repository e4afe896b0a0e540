"""The open resources of a run, and its counts."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from rich.console import Console

from batchcls.images.sources.base import Source
from batchcls.inference.executor import Executor
from batchcls.inference.run_novelty import RunNovelty
from batchcls.inference.stats import RecentReads, RunStats
from batchcls.inference.update import RunUpdate
from batchcls.interrupts import Interrupt
from batchcls.predictions.writer import PredictionsWriter
from batchcls.records import Slide


@dataclass(frozen=True, slots=True)
class OpenRun:
    """The open resources of a run, and its counts."""

    source: Source
    executor: Executor
    writer: PredictionsWriter
    stats: RunStats
    console: Console
    interrupt: Interrupt
    reads: RecentReads = field(default_factory=RecentReads)
    novelty: RunNovelty | None = None
    """Knowledge of the images that the engine was made for, if it has any."""
    update: RunUpdate | None = None
    """Update of a whole file, if the run is one."""

    def missing(self) -> Iterable[Slide]:
        """The slides to classify."""
        return self.update.missing(self.source) if self.update else self.writer.missing(self.source)

    def waiting(self) -> tuple[str, float] | None:
        """The file or folder that is waited for, and the seconds since then; None if there is none."""
        return self.executor.waiting() or self.source.waiting() or (self.update.waiting() if self.update else None)
