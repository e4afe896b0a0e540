"""Plots of an evaluation, as PNG files in memory."""

import io
import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from batchcls.evaluation.calibration import Calibration, ReliabilityBin
from batchcls.evaluation.risk_coverage import RiskCoverage

_BLUE, _ORANGE, _GRAY = "#0072b2", "#d55e00", "#888888"
"""Colors that color-blind readers can tell apart. Source: Okabe and Ito, Color Universal Design."""
_FEW = 10
"""Number of images below which a bin is drawn hollow, without a line through the bin."""
_SETTLED = 0.02
"""Coverage below which the error rate is noise, and may leave the plot."""
_MAX_NUMBERED_CLASSES = 15
_MAX_NAMED_CLASSES = 60
_MAX_NAME_LENGTH = 24


def confusion_plot(counts: npt.NDArray[np.int64], labels: Sequence[str]) -> bytes:
    """A confusion matrix: numbers of images, and by color the share of each row.

    Args:
        counts: (C, C) numbers of images, true class by row, predicted class by column.
        labels: (C,) labels in the order of ``counts``.
    """
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(16.0, 3.2 + 0.75 * len(labels))
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, shrink=0.8, format=PercentFormatter(1), label="share of the row")
    for row, column in np.ndindex(counts.shape) if len(labels) <= _MAX_NUMBERED_CLASSES else ():
        count, share = counts[row, column], shares[row, column]
        text = f"{count:,}\n{share:.1%}" if count else "0"
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color="white" if share > 0.55 else "black")
    if len(labels) <= _MAX_NAMED_CLASSES:
        names = [_short(label) for label in labels]
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor", parse_math=False)
        axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("truth")
    return _png(figure)


def calibration_plot(calibration: Calibration) -> bytes:
    """Accuracy by top probability, above the number of images in each bin; a bin of few images is hollow."""
    figure = Figure(figsize=(6, 6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot((0, 1), (0, 1), color=_GRAY, linestyle="--", linewidth=1, label="perfect")
    scaling = calibration.scaling
    _draw_bins(upper, calibration.bins, f"as predicted, ECE {calibration.ece:.4f}", _BLUE, "o")
    _draw_image_counts(lower, calibration.bins, _BLUE, width=0.8)
    if scaling is not None:
        _draw_bins(upper, scaling.bins, f"after a temperature, ECE {scaling.ece:.4f}", _ORANGE, "s")
        _draw_image_counts(lower, scaling.bins, _ORANGE, width=0.4)
    upper.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))
    _legend(upper)
    lower.set(xlabel="top probability", ylabel="images", yscale="log")
    lower.minorticks_off()
    _tidy(upper, lower)
    return _png(figure)


def risk_coverage_plot(curve: RiskCoverage) -> bytes:
    """Error rate of the most certain images, by their share of all images, and the threshold on that curve."""
    figure = Figure(figsize=(6, 4.6), layout="constrained")
    axes = figure.add_subplot()
    coverage, errors = [0.0, *curve.coverage], [curve.error_rate[0], *curve.error_rate]
    axes.plot(coverage, errors, color=_BLUE, label=f"area {curve.aurc:.3g}")
    wanted, threshold = curve.wanted_error_rate, curve.threshold
    axes.axhline(wanted, color=_GRAY, linestyle="--", linewidth=1, label=f"wanted: {wanted:.2%} at most")
    if threshold is not None:
        name = f"threshold {threshold.probability:.4f}: {threshold.coverage:.1%} accepted"
        axes.plot(threshold.coverage, threshold.error_rate, "o", color=_ORANGE, label=name)
    axes.set(xlabel="images accepted, the surest first", ylabel="errors among them", xlim=(0, 1.01))
    settled = [error for share, error in zip(coverage, errors, strict=True) if share >= _SETTLED]
    axes.set_ylim(0, max(*settled, wanted, 1e-3) * 1.1)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    _legend(axes)
    _tidy(axes)
    return _png(figure)


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


def _tidy(*plots: Axes) -> None:
    for axes in plots:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e4e4e4", linewidth=0.6)
        axes.set_axisbelow(True)


def _legend(axes: Axes) -> None:
    """Put the legend above the plot, where the legend hides nothing."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False, fontsize=9)


def _short(label: str) -> str:
    label = "".join(character if character.isprintable() else "?" for character in label)
    return label if len(label) <= _MAX_NAME_LENGTH else label[: _MAX_NAME_LENGTH - 3] + "..."


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        # A label in a script that the font lacks is drawn as boxes; the tables of the report have the label.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(stream, format="png", dpi=110, metadata={"Software": None})
    return stream.getvalue()
