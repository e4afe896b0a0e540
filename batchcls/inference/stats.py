"""Counts, times and notes of a run."""

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from batchcls.engine.base import EngineInfo
from batchcls.predictions.comparison import UpdateCounts
from batchcls.records import BatchResult
from batchcls.storage.transient_errors import is_transient

_RECENT_FILES = 100
_SUSPICIOUS_IMAGES = 20
"""Least number of images that, if all have one label, hints at a fault."""


@dataclass(slots=True)
class RunStats:
    """Counts, times and notes of a run so far; of the whole predictions file once the run is done."""

    info: EngineInfo
    why: str = ""
    """Reason for the run's choice of device and backend; empty if the user chose them."""
    hint: str = ""
    """Advice that would make the run faster on this machine; empty if there is none."""
    rows: int = 0
    """Rows, those of earlier runs included."""
    resumed_rows: int = 0
    """Rows that an earlier, interrupted run of the same command had left."""
    labels: Counter[str] = field(default_factory=Counter)
    """Rows by label."""
    errors: Counter[str] = field(default_factory=Counter)
    """Rows by kind of error."""
    coverage: float | None = None
    """Promised share of images whose set of labels holds the true one; None in a run without sets."""
    sets: Mapping[str, int] = field(default_factory=dict)
    """Counts of the sets, see `batchcls.predictions.counts.Counts.sets`; empty in a run without sets."""
    novelty: Mapping[str, Any] = field(default_factory=dict)
    """Counts of novel images, see `batchcls.inference.run_novelty`; empty for an engine that cannot tell novelty."""
    drift: Mapping[str, Any] = field(default_factory=dict)
    """Drift of the run, as `batchcls.engine.drift.Drift.values` gives it; empty as well then."""
    transient_errors: int = 0
    """Rows of this run whose file a disk or a network failed to deliver, and may deliver another time."""
    updated: UpdateCounts | None = None
    """What became of each row, in a run that has brought a whole file up to date; else None."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Files that were passed over, by reason."""
    warnings: list[str] = field(default_factory=list)
    """Warnings for the user, one line each."""
    unlisted: tuple[str, ...] = ()
    """Folders that could not be listed: files in them have no row."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds by stage; stages overlap, so that their sum is not ``elapsed_s``."""
    elapsed_s: float = 0.0
    """Seconds from the start of the run to its end."""
    peak_memory_bytes: int = 0
    """Most resident memory of all processes of the run together."""

    def spend(self, seconds: Mapping[str, float]) -> None:
        """Add seconds by stage."""
        for stage, spent in seconds.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + spent

    @property
    def unreadable(self) -> int:
        """Rows without a label."""
        return self.errors.total()

    @property
    def images_per_s(self) -> float:
        """Rows of this run a second, from the end of loading on."""
        return (self.rows - self.resumed_rows) / (self.elapsed_s - self.seconds["start"])


class RecentReads:
    """A record of which of a run's newest files could be read: if most could not, the disk or network has failed."""

    def __init__(self) -> None:
        self._errors: deque[str] = deque(maxlen=_RECENT_FILES)
        """The transient error of each of the newest files; empty for a file that was read."""

    def add(self, result: BatchResult) -> None:
        """Count the files of one more batch."""
        self._errors.extend("" for _ in result.slides)
        for failure in result.failures:
            self._errors.append(f"{failure.slide.file!r}: {failure.text}" if is_transient(failure.text) else "")

    @property
    def failure_message(self) -> str:
        """A message if most of the newest files could not be read; else empty."""
        failed = [text for text in self._errors if text]
        if 2 * len(failed) <= _RECENT_FILES:
            return ""
        return f"{len(failed)} of the last {_RECENT_FILES} files could not be read, the last is {failed[-1]}"


def one_label_warnings(labels: Mapping[str, int], info: EngineInfo) -> list[str]:
    """At most one warning, that an engine of several classes gave the same label to every image.

    Args:
        labels: Rows by label.
        info: The engine, which must compute: the null backend answers the same to every image.
    """
    images = sum(labels.values())
    given = [label for label, count in labels.items() if count]
    if len(given) != 1 or images < _SUSPICIOUS_IMAGES or len(info.labels) < 2 or info.backend == "null":
        return []
    return [
        f"all {images:,} images have one label, {given[0]!r}, of {len(info.labels):,} that the engine {info.name!r} "
        "knows; if that cannot be, the images are others than it was trained on, or it was built with other "
        "preprocessing: see batchcls info ENGINE, then batchcls build CHECKPOINT --recipe FILE"
    ]
