"""One measurement of a case or a peer, and the inputs of a case."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Sample:
    """Duration and answers of one measurement."""

    elapsed_s: float
    """Wall time after loading and warm-up, until the last answer is there or the last row is on disk."""
    images: int
    """Number of images that were processed in that time."""
    answers: Mapping[str, Sequence[float] | None] = field(default_factory=dict)
    """Probabilities by file path, None for an unreadable file; empty for cases that classify nothing."""
    peak_memory_bytes: int = 0
    """Largest resident memory; 0 for that of the process that measures."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """JSON values for the record's ``details``; ``cpu_s`` is the CPU time of all processes in seconds."""


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
