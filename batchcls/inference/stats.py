"""What a run has done so far."""

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from batchcls.records import BatchResult, EngineInfo, is_transient

_RECENT_FILES = 100


@dataclass(slots=True)
class RunStats:
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
    unanswered: int = 0
    """Files that a disk or a network did not hand out, and may another time."""
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


class RecentReads:
    """How the newest files of a run were read: one that fails says little, most of many that the disk is gone."""

    def __init__(self) -> None:
        self._failed: deque[str] = deque(maxlen=_RECENT_FILES)
        """Of each of the newest files what was wrong, empty if it was read."""

    def add(self, scored: BatchResult) -> None:
        """Count the files of one more batch."""
        self._failed.extend("" for _ in scored.slides)
        for failure in scored.failures:
            self._failed.append(f"{failure.slide.file!r}: {failure.text}" if is_transient(failure.text) else "")

    @property
    def failing(self) -> str:
        """What is wrong, if most of the newest files could not be read; empty otherwise."""
        failed = [text for text in self._failed if text]
        if 2 * len(failed) <= _RECENT_FILES:
            return ""
        return f"{len(failed)} of the last {_RECENT_FILES} files could not be read, the last is {failed[-1]}"
