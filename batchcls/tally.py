"""What a run has done so far."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from batchcls.records import EngineInfo


@dataclass(slots=True)
class Tally:
    """What a run has done so far, and of the whole file once it is done."""

    info: EngineInfo
    why: str = ""
    """What made the choice of device and backend, where nobody asked for them."""
    hint: str = ""
    """What would make such a run faster on this machine."""
    rows: int = 0
    resumed_rows: int = 0
    """Rows that an earlier, interrupted run of the same command had left."""
    labels: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    """By kind."""
    skipped: Counter[str] = field(default_factory=Counter)
    warnings: list[str] = field(default_factory=list)
    unlisted: tuple[str, ...] = ()
    """Folders that could not be opened: what is in them has no row."""
    seconds: dict[str, float] = field(default_factory=dict)
    """By stage; stages overlap, so they do not add up to ``elapsed_s``."""
    elapsed_s: float = 0.0
    peak_memory_bytes: int = 0
    """Of all the run's processes."""

    def spend(self, seconds: Mapping[str, float]) -> None:
        """Add to ``seconds``."""
        for stage, spent in seconds.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + spent

    @property
    def unreadable(self) -> int:
        return self.errors.total()

    @property
    def images_per_s(self) -> float:
        """Of this run, once everything was loaded."""
        return (self.rows - self.resumed_rows) / (self.elapsed_s - self.seconds["start"])
