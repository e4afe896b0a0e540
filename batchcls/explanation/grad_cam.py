"""Grad-CAM: heat maps of the places in an image that are evidence for a class.

Source: Selvaraju et al., Grad-CAM: Visual explanations from deep networks via gradient-based localization, 2017.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from captum.attr import LayerAttribution, LayerGradCam
from torch import Tensor, nn

from batchcls.explanation.cam_layers import cam_layer
from batchcls.networks.preprocess import Preprocess
from batchcls.records import Logits, Pixels

HeatMap = npt.NDArray[np.float32]
"""(H, W) float32 at the network's input size, 0 to 1, with 1 at the hottest place; all 0 if there is no such place."""

_SMALLEST_CONTRAST = 1e-3
"""Smallest range of values that counts as a hot place, as a fraction of the map's largest value."""


class GradCam:
    """Computes heat maps from the gradients at a network's last layer that has a height and a width.

    Args:
        network: Network in eval mode on the CPU, from (N, 3, H, W) normalized float32 to (N, classes) logits. Its
            in-place modules are made to work on copies, as gradients need.
        architecture: Name of the network's architecture.
        preprocess: How pixels are normalized for the network.

    Raises:
        CheckpointError: If the network has no such layer.
    """

    def __init__(self, network: nn.Module, architecture: str, preprocess: Preprocess) -> None:
        for step in network.modules():
            if hasattr(step, "inplace"):
                step.inplace = False  # type: ignore[assignment]  # a bool in every module that has the attribute
        self._network = network
        self._grad_cam = LayerGradCam(network, cam_layer(network, architecture, preprocess))
        self._preprocess = preprocess
        self._mean, self._std = (torch.tensor(values).reshape(-1, 1, 1) for values in (preprocess.mean, preprocess.std))

    def logits(self, pixels: Pixels) -> Logits:
        """(N, classes) float32 logits of the network.

        Args:
            pixels: (N, H, W, 3) uint8 RGB of the network's input size.
        """
        with torch.inference_mode():
            return np.asarray(self._network(self._normalized(pixels)).numpy())

    def maps(self, pixels: Pixels, classes: Sequence[int]) -> list[HeatMap]:
        """One heat map for each image.

        Args:
            pixels: (N, H, W, 3) uint8 RGB of the network's input size.
            classes: (N,) class to explain in each image, as a position among the labels.
        """
        coarse = self._grad_cam.attribute(self._normalized(pixels), target=list(classes), relu_attributions=True)
        fine = LayerAttribution.interpolate(coarse, pixels.shape[1:3], "bilinear")
        return [_scaled(np.asarray(values)) for values in fine[:, 0].detach().numpy()]

    def _normalized(self, pixels: Pixels) -> Tensor:
        channels_first = torch.from_numpy(np.ascontiguousarray(self._preprocess.ordered(pixels).transpose(0, 3, 1, 2)))
        return (channels_first.float() / 255 - self._mean) / self._std


def _scaled(values: HeatMap) -> HeatMap:
    largest = values.max()
    if not np.isfinite(values).all() or largest - values.min() <= _SMALLEST_CONTRAST * largest:
        return np.zeros_like(values)
    return np.asarray(values / largest)


def stands_out(heat: HeatMap) -> bool:
    """Whether the map has a place that is hotter than the rest."""
    return bool(heat.any())
