"""The appearance numbers of an image: light, stain, sharpness and traces of JPEG, from its pixels alone.

`appearance` is the definition. Its renderings as ONNX and PyTorch take their constants from here and may use no other
operations than these, which mean the same in every operator set and lose nothing where each result is rounded to
bfloat16: pixels up to 256 are exact there, filter weights are small integers, and nothing small is a difference of
two large rounded results.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from batchcls.records import Pixels

OPTICAL_DENSITY_STRIDE = 5
"""Every so many rows and columns, from the first, a pixel counts for the optical densities; logarithms are dear."""
_SMALL_IMAGE_ROWS = 96
"""Number of rows up to which all rows are looked at."""
STAIN_CHANNEL = 1
"""The channel by which pixels count as stained: green, which blood and tissue stains absorb most."""
_LUMA = (1, 2, 1)
_LAPLACIAN = np.array([[0, -1, 0], [-1, 4, -1], [0, -1, 0]])
_STEP = np.array([1, -3, 3, -1])
"""A third difference: large at a step between its middle two pixels, and small on a slope."""


@dataclass(frozen=True, slots=True)
class AppearanceFilter:
    """One convolution without padding or bias over RGB; its numbers are the means of the absolute responses."""

    names: tuple[str, ...]
    """The name of each output channel's number."""
    weights: npt.NDArray[np.float32]
    """(outputs, 3, rows, columns), small integers."""
    strides: tuple[int, int]
    dilation: int = 1


def _filter(*channels: tuple[tuple[int, int, int], npt.NDArray[np.int64]]) -> npt.NDArray[np.float32]:
    """Weights of (outputs, 3, rows, columns) from a color combination and a kernel for each output."""
    return np.stack([np.multiply.outer(color, kernel) for color, kernel in channels]).astype(np.float32)


_INNER, _GRID = (np.pad(_STEP, (left, 6 - left)) for left in (2, 6))
"""Steps between the pixels 3 and 4, inside a JPEG block, and 7 and 8, between two blocks."""
FILTERS = (
    AppearanceFilter(("fine",), _filter((_LUMA, _LAPLACIAN)), (7, 11)),
    AppearanceFilter(
        ("coarse", "coarse_red", "coarse_blue"),
        _filter((_LUMA, _LAPLACIAN), ((1, -1, 0), _LAPLACIAN), ((0, -1, 1), _LAPLACIAN)),
        (7, 11),
        dilation=4,
    ),
    AppearanceFilter(("inner_x", "grid_x"), _filter((_LUMA, _INNER[None]), (_LUMA, _GRID[None])), (5, 8)),
    AppearanceFilter(("inner_y", "grid_y"), _filter((_LUMA, _INNER[:, None]), (_LUMA, _GRID[:, None])), (8, 5)),
)
"""Strides that share no factor with 8 see every place in a JPEG block alike; those of 8 see one place only."""
APPEARANCE_NAMES = (
    *(f"{kind}_{channel}" for kind in ("mean", "deviation", "stain") for channel in ("red", "green", "blue")),
    *(name for filters in FILTERS for name in filters.names),
)
"""The name of each number.

``mean_*`` and ``deviation_*``: mean and mean absolute deviation of the optical density -log((pixel + 1) / 256).
``stain_*``: mean of the optical density times how far the pixel's green exceeds the mean green, if it does.
``fine``, ``coarse*``: Laplacians over 1 and 4 pixels of brightness, red minus green and blue minus green.
``inner_*``, ``grid_*``: steps between columns (x) and rows (y), inside blocks of 8 pixels and between them.
"""
COLOR = slice(0, 6)
"""The numbers that are the colors of novelty: means and deviations of optical density."""


def middle_rows(height: int) -> slice:
    """The rows that are looked at: about the middle half, from the first row of a JPEG block, to read few pixels.

    Args:
        height: Rows of the image; all are looked at where they are few.
    """
    if height <= _SMALL_IMAGE_ROWS:
        return slice(0, height)
    blocks = -(-height // 16)
    start = (height // 8 - blocks) // 2 * 8
    return slice(start, start + 8 * blocks)


def appearance(pixels: Pixels) -> npt.NDArray[np.float32]:
    """The appearance of images.

    Args:
        pixels: (N, H, W, 3) uint8 RGB, resized but not normalized; H and W at least 10.

    Returns:
        (N, `APPEARANCE_NAMES`) float32.
    """
    planes = pixels[:, middle_rows(pixels.shape[1])].transpose(0, 3, 1, 2).astype(np.float32)
    return np.concatenate([_densities(planes), *(_responses(planes, each) for each in FILTERS)], axis=1)


def _densities(planes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    sample = planes[:, :, ::OPTICAL_DENSITY_STRIDE, ::OPTICAL_DENSITY_STRIDE]
    density = -np.log((sample + 1) * np.float32(1 / 256))
    means = density.mean(axis=(2, 3), keepdims=True)
    deviations = density - means
    excess = np.maximum(deviations[:, STAIN_CHANNEL : STAIN_CHANNEL + 1], 0)
    return np.concatenate(
        [means[:, :, 0, 0], np.abs(deviations).mean(axis=(2, 3)), (density * excess).mean(axis=(2, 3))], 1
    )


def _responses(planes: npt.NDArray[np.float32], filters: AppearanceFilter) -> npt.NDArray[np.float32]:
    """(N, outputs) the mean absolute response to each output channel's kernel."""
    size = [(length - 1) * filters.dilation for length in np.array(filters.weights.shape[2:])]
    response = np.zeros(1, np.float32)
    for row, column in np.argwhere(filters.weights.any(axis=(0, 1))):
        top, left = row * filters.dilation, column * filters.dilation
        bottom, right = planes.shape[2] - size[0] + top, planes.shape[3] - size[1] + left
        tap = planes[:, :, top : bottom : filters.strides[0], left : right : filters.strides[1]]
        response = response + np.einsum("oc,nchw->nohw", filters.weights[:, :, row, column], tap)
    return np.asarray(np.abs(response).mean(axis=(2, 3)), np.float32)
