"""Plots of an evaluation, as PNG files in memory, for light and for dark pages."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from batchcls.evaluation.calibration import Calibration, ReliabilityBin
from batchcls.evaluation.risk_coverage import RiskCoverage
from batchcls.images.captions import class_caption


@dataclass(frozen=True, slots=True)
class Theme:
    """The colors of a plot."""

    ink: str
    """Color of text and axes."""
    paper: str
    """Color of the background, and of a share of 0."""
    grid: str
    full: str
    """Color of a share of 1."""
    blue: str
    orange: str


LIGHT = Theme(ink="#1c1e21", paper="#ffffff", grid="#e4e4e4", full="#08306b", blue="#0072b2", orange="#d55e00")
DARK = Theme(ink="#e6e8eb", paper="#1e2328", grid="#363d45", full="#9ccbff", blue="#56b4e9", orange="#e69f00")
"""Themes with colors that color-blind readers can tell apart. Source: Okabe and Ito, Color Universal Design."""
_GRAY = "#888888"
_DOTS_PER_INCH = 200
_PIXELS_PER_INCH = 100
"""Pixels of a page for an inch of a plot; screens with more dots show the plot sharper."""
_FEW = 10
"""Number of images below which a bin is drawn hollow, without a line through the bin."""
_SETTLED = 0.02
"""Coverage below which the error rate is noise, and may leave the plot."""
_MAX_SHARED_CLASSES, _MAX_NUMBERED_CLASSES = 12, 30
"""Largest numbers of classes for which cells hold the number of images and its share, and the number alone."""
_MAX_NAMED_CLASSES = 60
_MIDDLE_GRAY = 0.5
_MAX_NAME_LENGTH = 24


def confusion_plot(counts: npt.NDArray[np.int64], labels: Sequence[str], theme: Theme = LIGHT) -> bytes:
    """A picture of `confusion_figure`."""
    return _png(confusion_figure(counts, labels, theme))


def confusion_figure(counts: npt.NDArray[np.int64], labels: Sequence[str], theme: Theme = LIGHT) -> Figure:
    """A confusion matrix: numbers of images, and by color the share of each row.

    Args:
        counts: (C, C) numbers of images, true class by row, predicted class by column.
        labels: (C,) labels in the order of ``counts``.
        theme: Colors of the plot.
    """
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    colors = LinearSegmentedColormap.from_list("shares", [theme.paper, theme.full])
    side = min(8.6, 2.4 + 0.75 * len(labels))
    with rc_context(_settings(theme)):
        figure = Figure(figsize=(side + 1.6, side), layout="constrained")
        axes = figure.add_subplot()
        image = axes.imshow(shares, cmap=colors, vmin=0, vmax=1)
        figure.colorbar(image, shrink=0.8, format=PercentFormatter(1), label="share of the row")
        if len(labels) <= _MAX_NUMBERED_CLASSES:
            _draw_numbers(axes, counts, shares, theme)
        if len(labels) <= _MAX_NAMED_CLASSES:
            names = [_short(class_caption(label, labels)) for label in labels]
            font: Any = {"fontsize": 9 if len(labels) <= _MAX_NUMBERED_CLASSES else 6, "parse_math": False}
            axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor", **font)
            axes.set_yticks(range(len(names)), names, **font)
        axes.set_xlabel("predicted")
        axes.set_ylabel("truth")
    return figure


def calibration_plot(calibration: Calibration, theme: Theme = LIGHT) -> bytes:
    """Accuracy by top probability, above the number of images in each bin; a bin of few images is hollow."""
    with rc_context(_settings(theme)):
        figure = Figure(figsize=(5, 5), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        upper.plot((0, 1), (0, 1), color=_GRAY, linestyle="--", linewidth=1, label="perfect")
        scaling = calibration.scaling
        _draw_bins(upper, calibration.bins, f"as predicted, ECE {calibration.ece:.4f}", theme.blue, "o")
        _draw_image_counts(lower, calibration.bins, theme.blue, width=0.8)
        if scaling is not None:
            _draw_bins(upper, scaling.bins, f"after a temperature, ECE {scaling.ece:.4f}", theme.orange, "s")
            _draw_image_counts(lower, scaling.bins, theme.orange, width=0.4)
        upper.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))
        _legend(upper)
        lower.set(xlabel="top probability", ylabel="images", yscale="log")
        lower.minorticks_off()
        _tidy(theme, upper, lower)
        return _png(figure)


def risk_coverage_plot(curve: RiskCoverage, theme: Theme = LIGHT) -> bytes:
    """Error rate of the most certain images, by their share of all images, and the threshold on that curve."""
    coverage, errors = [0.0, *curve.coverage], [curve.error_rate[0], *curve.error_rate]
    wanted, threshold = curve.wanted_error_rate, curve.threshold
    with rc_context(_settings(theme)):
        figure = Figure(figsize=(5, 5), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(coverage, errors, color=theme.blue, label=f"area {curve.aurc:.3g}")
        axes.axhline(wanted, color=_GRAY, linestyle="--", linewidth=1, label=f"wanted: {wanted:.2%} at most")
        if threshold is not None:
            name = f"threshold {threshold.probability:.4f}: {threshold.coverage:.1%} accepted"
            axes.plot(threshold.coverage, threshold.error_rate, "o", color=theme.orange, label=name)
        axes.set(xlabel="images accepted, the surest first", ylabel="errors among them", xlim=(0, 1.01))
        settled = [error for share, error in zip(coverage, errors, strict=True) if share >= _SETTLED]
        axes.set_ylim(0, max(*settled, wanted, 1e-3) * 1.1)
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        _legend(axes)
        _tidy(theme, axes)
        return _png(figure)


def page_width(png: bytes) -> int:
    """The width of a plot on a page, in pixels."""
    return int.from_bytes(png[16:20]) * _PIXELS_PER_INCH // _DOTS_PER_INCH  # the first chunk of PNG begins with it


def _settings(theme: Theme) -> Any:  # matplotlib's type lists every setting there is
    """Settings of matplotlib that give a plot the colors of ``theme``, and the font that `class_caption` knows."""
    inks = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    papers = ("figure.facecolor", "axes.facecolor", "savefig.facecolor")
    return dict.fromkeys(inks, theme.ink) | dict.fromkeys(papers, theme.paper) | {"font.family": "DejaVu Sans"}


def _draw_numbers(axes: Axes, counts: npt.NDArray[np.int64], shares: npt.NDArray[np.float64], theme: Theme) -> None:
    """Write the number of images into each cell that is not empty, in the color that stands out there."""
    with_shares = len(counts) <= _MAX_SHARED_CLASSES
    paper, full = np.array(to_rgb(theme.paper)), np.array(to_rgb(theme.full))
    for row, column in np.argwhere(counts):
        count, share = counts[row, column], shares[row, column]
        text = f"{count:,}\n{share:.1%}" if with_shares else _short_count(count)
        brightness = (paper + share * (full - paper)).mean()
        color = "#000000" if brightness > _MIDDLE_GRAY else "#ffffff"
        size = 8 if with_shares else 6.5
        number = axes.text(column, row, text, ha="center", va="center", fontsize=size, color=color)
        number.set_in_layout(False)  # a cell has room for it; laying out 900 texts takes a second


def _short_count(count: int) -> str:
    """A number of images in at most four characters, rounded from 10,000 on."""
    for unit, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= 10_000 and count >= unit:
            return f"{count / unit:.0f}{letter}"
    return str(count)


def _draw_bins(axes: Axes, bins: Sequence[ReliabilityBin], name: str, color: str, marker: str) -> None:
    full = [place for place in bins if place.images >= _FEW]
    sparse = [place for place in bins if 0 < place.images < _FEW]
    axes.plot(*_points(full), color=color, marker=marker, markersize=5, label=name)
    axes.plot(*_points(sparse), color=color, marker=marker, markersize=5, fillstyle="none", linestyle="")


def _points(bins: Sequence[ReliabilityBin]) -> tuple[list[float], list[float]]:
    """Mean probability and accuracy of bins, of which none is empty."""
    across = [place.probability for place in bins if place.probability is not None]
    return across, [place.accuracy for place in bins if place.accuracy is not None]


def _draw_image_counts(axes: Axes, bins: Sequence[ReliabilityBin], color: str, width: float) -> None:
    middles = [(place.lower + place.upper) / 2 for place in bins]
    axes.bar(middles, [place.images for place in bins], width=width / len(bins), color=color, alpha=0.8)


def _tidy(theme: Theme, *plots: Axes) -> None:
    for axes in plots:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color=theme.grid, linewidth=0.6)
        axes.set_axisbelow(True)


def _legend(axes: Axes) -> None:
    """Put the legend above the plot, where the legend hides nothing."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False, fontsize=9)


def _short(label: str) -> str:
    """A label, or its beginning and its end, by which long labels differ."""
    half = _MAX_NAME_LENGTH // 2 - 1
    return label if len(label) <= _MAX_NAME_LENGTH else f"{label[:half]}...{label[-half:]}"


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=_DOTS_PER_INCH, bbox_inches="tight", metadata={"Software": None})
    return stream.getvalue()
