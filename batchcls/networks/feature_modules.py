"""Compute an engine's features with PyTorch: appearance, and the pooled values of the modules that its layers are."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from batchcls.networks.appearance import (
    FILTERS,
    OPTICAL_DENSITY_STRIDE,
    STAIN_CHANNEL,
    AppearanceFilter,
    middle_rows,
)
from batchcls.networks.architectures import PixelClassifier
from batchcls.networks.feature_layout import FeatureLayout
from batchcls.records import Features

_LARGEST_DIFFERENCE = 0.02
"""Largest difference between a layer's features and a module's, in standard deviations over the probes, on average."""
_LEAST_VARIATION = 1e-3
"""Part of the mean that is added to that standard deviation, for layers that hardly differ between images."""
_SIDES = ("output", "input")

_Observe = Callable[[str, Tensor], None]


@dataclass(frozen=True, slots=True)
class _Kernel:
    """One output of an `AppearanceFilter` in Python's numbers, which `torch.compile` takes as constants."""

    taps: tuple[tuple[float, int, int, int], ...]
    """Weights that are not zero, each with its channel, row and column among the pixels."""
    down: int
    """Rows from the kernel's first tap to its last possible one."""
    right: int
    """Columns likewise."""
    strides: tuple[int, int]
    """Rows and columns from one response to the next."""


def _kernels(filters: AppearanceFilter) -> tuple[_Kernel, ...]:
    """The kernels of the filter's outputs, in their order."""
    apart = filters.dilation
    down, right = ((length - 1) * apart for length in filters.weights.shape[2:])
    return tuple(
        _Kernel(
            tuple(
                (float(weights[channel, row, column]), channel, row * apart, column * apart)
                for channel, row, column in np.argwhere(weights).tolist()
            ),
            down,
            right,
            filters.strides,
        )
        for weights in filters.weights
    )


_KERNELS = tuple(kernel for filters in FILTERS for kernel in _kernels(filters))


class Appearance(nn.Module):
    """The appearance numbers of (N, H, W, 3) uint8 images, (N, A) float32, as `appearance` defines them.

    Filter responses are sums of strided slices, which read few pixels; a convolution would convert them all first.
    """

    def forward(self, pixels: Tensor) -> Tensor:
        rows = pixels[:, middle_rows(pixels.shape[1])]
        density = -torch.log((rows[:, ::OPTICAL_DENSITY_STRIDE, ::OPTICAL_DENSITY_STRIDE].float() + 1) / 256)
        deviations = density - density.mean((1, 2), keepdim=True)
        excess = deviations[..., STAIN_CHANNEL : STAIN_CHANNEL + 1].relu()
        means = [value.mean((1, 2)) for value in (density, deviations.abs(), density * excess)]
        return torch.cat([*means, torch.stack([_mean_response(rows, kernel) for kernel in _KERNELS], 1)], 1)


def _mean_response(pixels: Tensor, kernel: _Kernel) -> Tensor:
    """(N,) float32: the mean absolute response of (N, H, W, 3) uint8 pixels."""
    height, width = pixels.shape[1] - kernel.down, pixels.shape[2] - kernel.right
    response = torch.zeros((), device=pixels.device)
    for weight, channel, top, left in kernel.taps:
        rows = slice(top, top + height, kernel.strides[0])
        columns = slice(left, left + width, kernel.strides[1])
        response = response + weight * pixels[:, rows, columns, channel].float()
    return response.abs().mean((1, 2))


class FeatureClassifier(nn.Module):
    """A classifier that answers features as well: (N, H, W, 3) uint8 to (N, classes + F) float32, logits first.

    Args:
        classifier: The network, in eval mode; hooks are put into it.
        layout: The layers, to tell their numbers of channels.
        places: Where each layer's values are, as `matching_places` names it.
    """

    def __init__(self, classifier: PixelClassifier, layout: FeatureLayout, places: Sequence[str]) -> None:
        super().__init__()
        self.classifier = classifier
        self.appearance = Appearance()
        self._places = tuple(places)
        self._pooled: dict[str, Tensor] = {}
        for place, layer in zip(places, layout.layers, strict=True):
            _hook(classifier.network, place, self._pool_of(layer.width))

    def forward(self, pixels: Tensor) -> Tensor:
        logits = self.classifier(pixels)  # its hooks pool
        return torch.cat([logits, self.appearance(pixels), *(self._pooled[name] for name in self._places)], 1)

    def _pool_of(self, width: int) -> _Observe:
        def pool(place: str, values: Tensor) -> None:
            pooled = _pooled(values, width)
            if pooled is not None:
                self._pooled[place] = pooled

        return pool


def matching_places(
    classifier: PixelClassifier, pixels: Tensor, features: Features, layout: FeatureLayout
) -> tuple[str, ...]:
    """Where in PyTorch's network the values of each layer are: a module and its side, as in ``layer4.0.conv1:input``.

    Names of layers say nothing in another framework; so their features of some images are looked for. A layer has an
    empty name where no module takes or gives its values, or only one that is called several times.

    Args:
        classifier: The network in float32, in eval mode.
        pixels: (N, H, W, 3) uint8 images that differ from one another, on the network's device.
        features: (N, F) float32, the ONNX file's for them.
        layout: The order of ``features``.
    """
    wanted = [torch.from_numpy(features[:, columns].copy()).to(pixels.device) for columns in layout.layer_slices]
    scales = [values.std(0).mean() + _LEAST_VARIATION * values.abs().mean() for values in wanted]
    differences: list[dict[str, float]] = [{} for _ in wanted]
    calls: Counter[str] = Counter()

    def compare(place: str, values: Tensor) -> None:
        calls[place] += 1
        for number, layer in enumerate(layout.layers):
            pooled = _pooled(values, layer.width)
            if pooled is not None and pooled.shape == wanted[number].shape:
                differences[number][place] = float((pooled - wanted[number]).abs().mean() / scales[number])

    places = [f"{name}:{side}" for name, _ in classifier.network.named_modules() if name for side in _SIDES]
    with _hooks(classifier.network, places, compare), torch.inference_mode():
        classifier(pixels)
    matches = []
    for found in differences:
        once = {place: difference for place, difference in found.items() if calls[place] == 1}
        nearest = min(once, key=lambda place: once[place], default="")
        matches.append(nearest if once.get(nearest, math.inf) < _LARGEST_DIFFERENCE else "")
    return tuple(matches)


@contextmanager
def _hooks(network: nn.Module, places: Sequence[str], observe: _Observe) -> Iterator[None]:
    handles = [_hook(network, place, observe) for place in places]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hook(network: nn.Module, place: str, observe: _Observe) -> RemovableHandle:
    """Let ``observe`` see what a module takes or gives."""
    name, _, side = place.rpartition(":")
    module = network.get_submodule(name)

    def before(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if inputs and isinstance(inputs[0], Tensor):
            observe(place, inputs[0])

    def after(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor):
            observe(place, output)

    return module.register_forward_pre_hook(before) if side == "input" else module.register_forward_hook(after)


def _pooled(values: Tensor, width: int) -> Tensor | None:
    """(N, ``width``) float32 means over space of (N, C, H, W), (N, H, W, C), (N, T, C) or (N, C); None of others."""
    if values.ndim == 4 and values.shape[1] == width:
        return values.mean((2, 3), dtype=torch.float32)
    if values.ndim in (2, 3, 4) and values.shape[-1] == width:
        return (
            values.float() if values.ndim == 2 else values.mean(tuple(range(1, values.ndim - 1)), dtype=torch.float32)
        )
    return None
