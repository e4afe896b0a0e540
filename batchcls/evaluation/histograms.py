"""Histograms of values from 0 to 1 for a page, with a logarithmic scale of rows."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BINS = 40
"""Number of equal bins of a histogram."""
_PLOT_PX = 100


@dataclass(frozen=True, slots=True)
class Bar:
    """A bin of a histogram that has rows."""

    bin: int
    height: float
    """Height in pixels."""
    says: str
    """Range of values and number of rows."""


@dataclass(frozen=True, slots=True)
class GridLine:
    """A horizontal line of a plot."""

    height: float
    """Distance from the foot of the plot, in pixels."""
    says: str
    """Number of rows at that height."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """A histogram with a logarithmic scale of rows."""

    title: str
    rows: int
    bars: tuple[Bar, ...]
    lines: tuple[GridLine, ...]


def bins_of(values: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    """(rows,) the bin of each value from 0 to 1."""
    return (values * BINS).astype(np.int64).clip(max=BINS - 1)


def draw_histogram(title: str, counts: npt.NDArray[np.int64]) -> Histogram:
    """A histogram of (bins,) numbers of rows."""
    decades = max(1, math.ceil(math.log10(max(1, counts.max()))))

    def height(count: float) -> float:
        return round(_PLOT_PX * (1 + math.log10(count)) / (1 + decades), 1)

    bars = tuple(
        Bar(place, height(count), f"{place / BINS:.3f} to {(place + 1) / BINS:.3f}: {count:,}")
        for place, count in enumerate(counts.tolist())
        if count
    )
    steps = [10**decade for decade in range(0, decades + 1, 1 if decades < 5 else 2)]
    lines = tuple(GridLine(height(step), f"{step:,}") for step in steps)
    return Histogram(title, int(counts.sum()), bars, lines)
