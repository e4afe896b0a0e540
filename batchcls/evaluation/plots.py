"""Plots of an evaluation, as PNG files in memory."""

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

_BLUE, _ORANGE, _GREY = "#0072b2", "#d55e00", "#888888"
"""Apart for the colour-blind too. Source: Okabe and Ito, Color Universal Design."""
_FEW = 10
"""A bin of fewer images is shown hollow, and no line goes through it."""
_SETTLED = 0.02
"""Of the surest images, a smaller share is noise, and may leave the plot."""
_MOST_NUMBERED = 15
_MOST_NAMED = 60
_LONGEST_NAME = 24


def confusion_plot(counts: npt.NDArray[np.int64], labels: Sequence[str]) -> bytes:
    """Counts, and by colour their share of each row, of a (C, C) matrix with the truth by row."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(16.0, 3.2 + 0.75 * len(labels))
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, shrink=0.8, format=PercentFormatter(1), label="share of the row")
    for row, column in np.ndindex(counts.shape) if len(labels) <= _MOST_NUMBERED else ():
        count, share = counts[row, column], shares[row, column]
        text = f"{count:,}\n{share:.1%}" if count else "0"
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color="white" if share > 0.55 else "black")
    if len(labels) <= _MOST_NAMED:
        names = [_short(label) for label in labels]
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor", parse_math=False)
        axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("truth")
    return _png(figure)


def calibration_plot(found: Mapping[str, Any]) -> bytes:
    """What `calibration.calibration` found: accuracy by top probability, above the number of images;
    hollow where those are few."""
    figure = Figure(figsize=(6, 6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot((0, 1), (0, 1), color=_GREY, linestyle="--", linewidth=1, label="perfect")
    tempered = found["temperature"]
    series = [(found, f"as predicted, ECE {found['ece']:.4f}", _BLUE, "o")]
    if tempered["fitted"] is not None:
        series.append((tempered, f"after a temperature, ECE {tempered['ece']:.4f}", _ORANGE, "s"))
    for width, (points, name, colour, marker) in zip((0.8, 0.4), series, strict=False):
        full = [place for place in points["bins"] if place["images"]]
        sure = [place for place in full if place["images"] >= _FEW]
        few = [place for place in full if place["images"] < _FEW]
        upper.plot(*_line(sure), color=colour, marker=marker, markersize=5, label=name)
        upper.plot(*_line(few), color=colour, marker=marker, markersize=5, fillstyle="none", linestyle="")
        middles = [(place["from"] + place["to"]) / 2 for place in points["bins"]]
        images = [place["images"] for place in points["bins"]]
        lower.bar(middles, images, width=width / len(images), color=colour, alpha=0.8)
    upper.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))
    _legend(upper)
    lower.set(xlabel="top probability", ylabel="images", yscale="log")
    lower.minorticks_off()
    _tidy(upper, lower)
    return _png(figure)


def risk_coverage_plot(found: Mapping[str, Any]) -> bytes:
    """What `calibration.risk_coverage` found: errors among the surest images, by their share of all."""
    figure = Figure(figsize=(6, 4.6), layout="constrained")
    axes = figure.add_subplot()
    coverage, errors = [0.0, *found["coverage"]], [found["error_rate"][0], *found["error_rate"]]
    axes.plot(coverage, errors, color=_BLUE, label=f"area {found['aurc']:.3g}")
    wanted, threshold = found["wanted_error_rate"], found["threshold"]
    axes.axhline(wanted, color=_GREY, linestyle="--", linewidth=1, label=f"wanted: {wanted:.2%} at most")
    if threshold is not None:
        name = f"threshold {threshold['probability']:.4f}: {threshold['coverage']:.1%} accepted"
        axes.plot(threshold["coverage"], threshold["error_rate"], "o", color=_ORANGE, label=name)
    axes.set(xlabel="images accepted, the surest first", ylabel="errors among them", xlim=(0, 1.01))
    settled = [error for share, error in zip(coverage, errors, strict=True) if share >= _SETTLED]
    axes.set_ylim(0, max(*settled, wanted, 1e-3) * 1.1)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    _legend(axes)
    _tidy(axes)
    return _png(figure)


def _line(bins: Sequence[Mapping[str, Any]]) -> tuple[list[float], list[float]]:
    return [place["probability"] for place in bins], [place["accuracy"] for place in bins]


def _tidy(*several: Axes) -> None:
    for axes in several:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e4e4e4", linewidth=0.6)
        axes.set_axisbelow(True)


def _legend(axes: Axes) -> None:
    """Above the plot, where it hides nothing."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False, fontsize=9)


def _short(label: str) -> str:
    label = "".join(character if character.isprintable() else "?" for character in label)
    return label if len(label) <= _LONGEST_NAME else label[: _LONGEST_NAME - 3] + "..."


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        # A label in a script that the font lacks shows as boxes; the tables have it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(stream, format="png", dpi=110, metadata={"Software": None})
    return stream.getvalue()
