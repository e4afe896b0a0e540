"""The measures of an image, by which the drift of a run is seen: light, color, contrast, sharpness, compression."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from batchcls.networks.appearance import APPEARANCE_NAMES

APPEARANCE_MEASURES = (
    "brightness",
    "color_red",
    "color_blue",
    "stain_red",
    "stain_blue",
    "contrast",
    "sharpness",
    "block_edges",
    "color_detail",
)
"""Measures from appearance numbers alone, in the order of their columns.

``brightness``: mean optical density, so less is brighter. ``color_*``: mean optical density of red and of blue less
that of green, which a change of the light leaves alone; ``stain_*``: the same of the stained pixels. ``contrast``:
logarithm of the mean deviation of optical density. ``sharpness``: logarithm of fine by coarse detail. ``block_edges``:
logarithm of steps at multiples of 8 pixels by steps between them, which JPEG makes. ``color_detail``: logarithm of
detail in color by detail in brightness, which JPEG takes away even where the image was resized afterwards.
"""
DISTANCE_PREFIX = "distance_"
"""Beginning of the names of measures that are distances of `batchcls.engine.novelty`, each of one group."""
_LEAST_DENSITY = 0.005
_LEAST_DETAIL = 0.5
"""Added before a logarithm is taken, so that even images have measures."""


def measure_names(groups: Sequence[str]) -> tuple[str, ...]:
    """The names of an image's measures.

    Args:
        groups: Names of the groups of features that have a distance.
    """
    return (*APPEARANCE_MEASURES, *(f"{DISTANCE_PREFIX}{group}" for group in groups))


def image_measures(
    appearance: npt.NDArray[np.float32], distances: npt.NDArray[np.floating] | None = None
) -> npt.NDArray[np.float32]:
    """The measures of images.

    Args:
        appearance: (N, `APPEARANCE_NAMES`) appearance numbers.
        distances: (N, G) distance of each group of features; None: no groups.

    Returns:
        (N, 9 + G) float32, in the order of `measure_names`; not finite where the arguments are not.
    """
    numbers = dict(zip(APPEARANCE_NAMES, appearance.T.astype(np.float64), strict=True))
    with np.errstate(invalid="ignore"):  # what is not a number stays one
        columns = [*_densities(numbers), *_details(numbers)]
    if distances is not None:
        columns.extend(distances.T)
    return np.stack(columns, axis=1).astype(np.float32)


def _densities(numbers: dict[str, npt.NDArray[np.float64]]) -> list[npt.NDArray[np.float64]]:
    mean, deviation, stain = (
        np.stack([numbers[f"{kind}_{channel}"] for channel in ("red", "green", "blue")])
        for kind in ("mean", "deviation", "stain")
    )
    # Half of a mean absolute deviation is the mean of the values' excess over their mean: the weight of the stain.
    stain = stain / np.maximum(deviation[1] / 2, _LEAST_DENSITY)
    contrast = np.log(deviation.mean(axis=0) + _LEAST_DENSITY)
    differences = [values[channel] - values[1] for values in (mean, stain) for channel in (0, 2)]
    return [mean.mean(axis=0), *differences, contrast]


def _details(numbers: dict[str, npt.NDArray[np.float64]]) -> list[npt.NDArray[np.float64]]:
    def log_ratio(numerator: Sequence[str], denominator: Sequence[str]) -> npt.NDArray[np.float64]:
        above, below = (sum((numbers[name] for name in names), _LEAST_DETAIL) for names in (numerator, denominator))
        return np.asarray(np.log(above) - np.log(below))

    return [
        log_ratio(["fine"], ["coarse"]),
        log_ratio(["grid_x", "grid_y"], ["inner_x", "inner_y"]),
        log_ratio(["coarse_red", "coarse_blue"], ["coarse"]),
    ]
