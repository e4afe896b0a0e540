"""The results of comparing two predictions files, as frozen types from which text and JSON are rendered."""

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from batchcls.engine.drift import Drift, DriftEffect


@dataclass(frozen=True, slots=True)
class ComparedRun:
    """One of the two files."""

    path: str
    rows: int
    unreadable: int
    """Rows without a label."""
    provenance: Mapping[str, str]
    """Engine, precision and whatever else tells how the rows came about, by displayed name."""
    labels: Mapping[str, int]
    """Number of rows with each label, in the order of the first file's labels."""
    mean_probability: float | None
    """Mean of the largest probabilities, 0 to 1; None without readable rows."""


@dataclass(frozen=True, slots=True)
class SameImages:
    """The rows of images that are in both files."""

    by: str
    """Part of the paths that is equal, as in `batchcls.predictions.label_matching.LabelMatch`."""
    images: int
    """Images that are in both files, in the same size."""
    other_sizes: int
    """Images of one name whose width or height differ, which are not compared."""
    readable: int
    """Images among ``images`` with a label in both files."""
    agreeing: int
    """Images among ``readable`` with the same label in both."""
    mean_change: float | None
    """Mean change of the largest probability from the first file to the second; None without readable images."""
    mean_absolute_change: float | None
    """The same without signs."""
    changed: pa.Table
    """(changed rows) ``path`` in the first file, and ``label_a``, ``probability_a``, ``label_b``, ``probability_b``."""


@dataclass(frozen=True, slots=True)
class PairedAccuracy:
    """How often both files are right on the same labeled images."""

    images: int
    """Labeled images with a label in both files; 1 or more."""
    right_a: int
    right_b: int
    only_a: int
    """Images on which only the first file is right."""
    only_b: int
    """Images on which only the second file is right."""
    p_value: float
    """McNemar's exact test: how probable so uneven a split of those is if both are equally often right; 0 to 1."""


@dataclass(frozen=True, slots=True)
class RunComparison:
    """All that two predictions files say of one another; the first is the reference of the second."""

    a: ComparedRun
    b: ComparedRun
    differences: tuple[str, ...]
    """Names in `ComparedRun.provenance` under which the files differ; none where one has lost its record as a whole."""
    labels: DriftEffect
    """How far the shares of the labels lie apart."""
    probability_effect: float | None
    """Change of the mean largest probability in standard deviations of the first file's; None if it is unknown."""
    drift: Drift
    same: SameImages | None
    """None where the files have no image in common."""
    accuracy: PairedAccuracy | None
    """None where no truth was given."""
    notes: tuple[str, ...]
    """Sentences on what could not be compared."""
