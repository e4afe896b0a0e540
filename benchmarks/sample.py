"""One measurement of a case or a peer, and what a case is measured on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Sample:
    """How long one measurement took, and which answers it gave."""

    elapsed_s: float
    """Wall time from the moment everything is loaded and warm to the last answer, or the last row on disk."""
    images: int
    """Number of images that were processed in that time."""
    answers: Mapping[str, Sequence[float] | None] = field(default_factory=dict)
    """Probabilities by file path; None for an unreadable file; empty where nothing is classified."""
    peak_memory_bytes: int = 0
    """Largest resident memory."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """JSON values for the record's ``details``."""


@dataclass(frozen=True, slots=True)
class Task:
    """Inputs of one measurement of a case."""

    folder: Path
    """Folder of images."""
    engine: Path
    """Engine folder."""
    images: int
    """Number of images for cases that measure the engine alone; all other cases use the whole folder."""
    device: str = "cpu"
    """``cpu`` or ``cuda:N``."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `batchcls.inference.options.RunOptions` that differ from their defaults."""
