"""Grad-CAM: where in an image a network finds what speaks for a class, and a picture of it.

Source: Selvaraju et al., Grad-CAM: Visual explanations from deep networks via gradient-based localization, 2017.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from captum.attr import LayerAttribution, LayerGradCam
from matplotlib import colormaps
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from batchcls.networks.architectures import CAM_LAYERS
from batchcls.records import Logits, Pixels, Preprocess

HeatMap = npt.NDArray[np.float32]
"""(H, W) of the network's input, 0 to 1; the hottest place is 1, or all are 0 where nothing stands out."""

SIDE_PX = 448
"""The longer side of a picture."""
_COLOURS = "viridis"
"""Even steps of it look even, also to the colour-blind; and no stain of blood is green or yellow."""
_OPACITY = 0.5
"""Of the hottest place, so that the cell below is still seen."""
_LEAST_CONTRAST = 1e-3
"""Of a map, as a share of its largest value; below it, it is the same everywhere."""
_GAP_PX = 8
_LINE_PX = 18


class GradCam:
    """Maps of what speaks for a class, from the last layer of a network that knows what stands where.

    Args:
        network: (N, 3, H, W) normalised to (N, classes), float32, in eval mode. Its in-place steps are undone, for
            they would write over what the gradients are of.
        architecture: One of `batchcls.networks.architectures.ARCHITECTURES`.
    """

    def __init__(self, network: nn.Module, architecture: str, preprocess: Preprocess) -> None:
        for step in network.modules():
            if hasattr(step, "inplace"):
                step.inplace = False  # type: ignore[assignment]  # of the modules that have it, a bool
        self._network = network
        self._grad_cam = LayerGradCam(network, network.get_submodule(CAM_LAYERS[architecture]))
        self._preprocess = preprocess
        self._mean, self._std = (torch.tensor(values).reshape(3, 1, 1) for values in (preprocess.mean, preprocess.std))

    def logits(self, pixels: Pixels) -> Logits:
        """What the network answers to (N, H, W, 3) uint8 RGB of its input's size, (N, classes) float32."""
        with torch.inference_mode():
            return np.asarray(self._network(self._normalised(pixels)).numpy())

    def maps(self, pixels: Pixels, classes: Sequence[int]) -> list[HeatMap]:
        """A map for each of (N, H, W, 3) uint8 RGB, of what speaks for the class of the same position."""
        found = self._grad_cam.attribute(self._normalised(pixels), target=list(classes), relu_attributions=True)
        whole = LayerAttribution.interpolate(found, pixels.shape[1:3], "bilinear")
        return [_scaled(np.asarray(values)) for values in whole[:, 0].detach().numpy()]

    def _normalised(self, pixels: Pixels) -> Tensor:
        channels_first = torch.from_numpy(np.ascontiguousarray(self._preprocess.ordered(pixels).transpose(0, 3, 1, 2)))
        return (channels_first.float() / 255 - self._mean) / self._std


def _scaled(values: HeatMap) -> HeatMap:
    largest = values.max()
    if not np.isfinite(values).all() or largest - values.min() <= _LEAST_CONTRAST * largest:
        return np.zeros_like(values)
    return np.asarray(values / largest)


def stands_out(heat: HeatMap) -> bool:
    """Whether the map shows anything."""
    return bool(heat.any())


def overlay(image: Image.Image, heat: HeatMap) -> Image.Image:
    """``image`` in grey, coloured where ``heat`` is, the more the hotter; as it is where nothing stands out."""
    if not stands_out(heat):
        return image
    strength = np.asarray(Image.fromarray(heat).resize(image.size, Image.Resampling.BILINEAR)).clip(0, 1)
    colours = colormaps[_COLOURS](strength)[..., :3] * 255
    alpha = _OPACITY * strength[..., None]
    grey = np.asarray(image.convert("L"), np.float32)[..., None]
    return Image.fromarray((grey * (1 - alpha) + colours * alpha).astype(np.uint8))


def side_by_side(pictures: Sequence[tuple[Image.Image, str]]) -> Image.Image:
    """Pictures of one size in a row, each above a line that says what it is."""
    width, height = pictures[0][0].size
    column = max(width, SIDE_PX // 2)  # narrow pictures have captions too
    whole = Image.new("RGB", (len(pictures) * (column + _GAP_PX) - _GAP_PX, height + _LINE_PX), "white")
    font = ImageFont.load_default(_LINE_PX - 6)
    for position, (picture, caption) in enumerate(pictures):
        left = position * (column + _GAP_PX)
        line = Image.new("RGB", (column, _LINE_PX), "white")  # which cuts what is too long for it
        text = "".join(character if character.isprintable() else "?" for character in caption)
        ImageDraw.Draw(line).text((2, 1), text, fill="black", font=font)
        whole.paste(picture, (left, 0))
        whole.paste(line, (left, height))
    return whole
