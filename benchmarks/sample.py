"""One measurement of a case or a peer, and what a case is measured on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Sample:
    """How long a case took, and what it answered."""

    elapsed_s: float
    """From everything loaded and warm to the last answer, or the last row on disk."""
    images: int
    answers: Mapping[str, Sequence[float] | None] = field(default_factory=dict)
    """The probabilities of each file, by its path; None of one that cannot be read; empty where nothing answers."""
    peak_memory_bytes: int = 0
    details: Mapping[str, Any] = field(default_factory=dict)
    """What else is worth keeping in a record; JSON values."""


@dataclass(frozen=True, slots=True)
class Task:
    """What a case is measured on."""

    folder: Path
    engine: Path
    images: int
    """How many to use, where the case need not use all of the folder's."""
    device: str = "cpu"
    """``cpu`` or ``cuda:N``."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of `batchcls.run_options.RunOptions`, where they are not the default."""
