"""Pictures of an explained image: the region that the network sees, plain and with the heat map over it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageDraw

from batchcls.explanation.grad_cam import HeatMap, stands_out
from batchcls.images.captions import caption_font, drawable
from batchcls.images.thumbnails import thumbnail
from batchcls.networks.preprocess import Preprocess
from batchcls.records import Pixels, Slide

_SIDE_PX = 448
"""Longer side of a picture."""
_COLORS = "viridis"
"""Color map whose steps look even, also to color-blind readers; no blood stain is green or yellow."""
_OPACITY = 0.5
"""Opacity of the color at the hottest place, low enough for the cell to remain visible."""
_GAP_PX = 8
_LINE_PX = 18


@dataclass(frozen=True, slots=True)
class ImageExplanation:
    """The prediction of a network for one image, and the heat map for a class."""

    slide: Slide
    size: tuple[int, int]
    """Width and height of the image file, in pixels."""
    pixels: Pixels
    """(H, W, 3) uint8 RGB pixels at the network's input size, not normalized."""
    heat: HeatMap
    label: str
    """Predicted label."""
    probability: float
    """Probability of the predicted label, 0 to 1."""
    explained_label: str
    """Label of the class that ``heat`` explains."""


def region_picture(explanation: ImageExplanation, preprocess: Preprocess) -> Image.Image:
    """An RGB picture of the region of the file that the network sees, in the proportions of the file.

    Where Pillow cannot open the file, the network's input pixels are shown.
    """
    width, height = explanation.size
    left, top, right, bottom = preprocess.region(width, height)
    zoom = _SIDE_PX / max(right - left, bottom - top)
    sides = (width, height) if preprocess.resize == "stretch" else preprocess.size_px[::-1]
    size = max(1, round(_SIDE_PX * sides[0] / max(sides))), max(1, round(_SIDE_PX * sides[1] / max(sides)))
    picture = thumbnail(explanation.slide, round(max(width, height) * min(1, zoom)))
    if picture is None:
        return Image.fromarray(explanation.pixels).resize(size, Image.Resampling.BICUBIC)
    across, down = picture.width / width, picture.height / height
    box = left * across, top * down, min(right * across, picture.width), min(bottom * down, picture.height)
    return picture.resize(size, Image.Resampling.BICUBIC, box)


def overlay(image: Image.Image, heat: HeatMap) -> Image.Image:
    """``image`` in gray with the heat map over it in color; ``image`` itself where nothing stands out.

    Args:
        image: RGB picture of the region that the network sees, of any size.
        heat: Heat map of that region.
    """
    if not stands_out(heat):
        return image
    strength = np.asarray(Image.fromarray(heat).resize(image.size, Image.Resampling.BILINEAR)).clip(0, 1)
    colors = colormaps[_COLORS](strength)[..., :3] * 255
    alpha = _OPACITY * strength[..., None]
    gray = np.asarray(image.convert("L"), np.float32)[..., None]
    return Image.fromarray((gray * (1 - alpha) + colors * alpha).astype(np.uint8))


def side_by_side(pictures: Sequence[tuple[Image.Image, str]]) -> Image.Image:
    """Pictures in a row, each above its caption.

    Args:
        pictures: Pictures of one size, and a caption of one line for each.
    """
    width, height = pictures[0][0].size
    column = max(width, _SIDE_PX // 2)  # wide enough for a caption
    canvas = Image.new("RGB", (len(pictures) * (column + _GAP_PX) - _GAP_PX, height + _LINE_PX), "white")
    font = caption_font(_LINE_PX - 6)
    for position, (picture, caption) in enumerate(pictures):
        left = position * (column + _GAP_PX)
        line = Image.new("RGB", (column, _LINE_PX), "white")  # cuts a caption that is too long
        ImageDraw.Draw(line).text((2, 1), drawable(caption), fill="black", font=font)
        canvas.paste(picture, (left, 0))
        canvas.paste(line, (left, height))
    return canvas
