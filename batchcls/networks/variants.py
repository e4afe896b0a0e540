"""Whether weights that fit an architecture by name are those of a variant, which computes otherwise."""

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, fx, nn

from batchcls.networks.stand_ins import named_values

_SAYING = ("arch", "architecture", "model_name", "model", "backbone", "encoder", "encoder_name", "base_model", "net")
"""Keys, in lower case, under which a file says what network it is of."""
_LEAST_CORRELATION = 0.6
_LEAST_RATIO, _MOST_RATIO = 0.6, 1.8
"""Of recorded to predicted means: 0.87 to 0.9 of trained networks with ReLU, 0.46 where they were trained with SiLU."""
_FEWEST_LAYERS = 3


def variant_warnings(
    module: nn.Module, architecture: str, size_px: tuple[int, int], about: Mapping[Any, Any]
) -> list[str]:
    """A line for each sign that ``module`` is not computed as it was trained.

    Args:
        module: Float32, in eval mode, on the CPU.
        about: All that the file holds.
    """
    remedy = (
        "compare its answers with those in training; if it is a variant, such as one of timm's with torchvision's "
        "names, export it: torch.onnx.export(...), then batchcls build model.onnx"
    )
    warnings = [
        f"warning: the file says {key} {said!r}, and is taken for {architecture} by its tensors' names; {remedy}"
        for key, said in named_values(about, _SAYING)
        if isinstance(said, str) and _is_variant(said, architecture)
    ]
    if not _consistent(module, size_px):
        warnings.append(
            f"warning: its batch normalisations recorded other activations than {architecture} has as torchvision "
            f"computes it; {remedy}"
        )
    return warnings


def _is_variant(said: str, architecture: str) -> bool:
    """Whether a name is of the family of ``architecture``, and not its own."""
    named, own = (re.sub(r"[\W_]+", "", name.casefold()) for name in (said, architecture))
    family = re.match("[a-z]+?(?=v?[0-9]|$)", own)
    return own not in named and family is not None and bool(re.search(rf"{family[0]}[a-z]{{0,4}}[0-9]", named))


def _consistent(module: nn.Module, size_px: tuple[int, int]) -> bool:
    """Whether each layer recorded the means that follow from the one before it, if ReLU is between them.

    Behind a batch normalisation values are about normal, with a mean and deviation that are weights; so the mean behind
    a ReLU and a convolution is known without any image, and was recorded by the next batch normalisation.
    """
    correlations, ratios = [], []
    for predicted, norm in _predictions(module, size_px):
        recorded = norm.running_mean
        if recorded is not None and recorded.abs().max() > 0:  # else it was never trained
            correlations.append(torch.corrcoef(torch.stack([predicted, recorded]))[0, 1])
            ratios.append((predicted @ recorded) / (predicted @ predicted))
    if len(ratios) < _FEWEST_LAYERS:
        return True
    correlation, ratio = (float(torch.stack(values).nanmedian()) for values in (correlations, ratios))
    return not (correlation < _LEAST_CORRELATION or ratio < _LEAST_RATIO or ratio > _MOST_RATIO)


def _predictions(module: nn.Module, size_px: tuple[int, int]) -> Iterator[tuple[Tensor, nn.BatchNorm2d]]:
    """What each batch normalisation behind another, a ReLU and a convolution should have recorded as its mean."""
    graph = fx.symbolic_trace(module)
    modules = dict(graph.named_modules())
    sides = _sides(module, size_px)
    for node in graph.graph.nodes:
        chain = [node]
        while len(chain) < 4 and chain[-1].args and isinstance(chain[-1].args[0], fx.Node):
            chain.append(chain[-1].args[0])
        parts = [modules.get(str(item.target), item.target) for item in chain]
        match parts:
            case [nn.BatchNorm2d() as norm, nn.Conv2d() as convolution, activation, nn.BatchNorm2d() as before] if (
                isinstance(activation, nn.ReLU | nn.ReLU6) or activation in (F.relu, torch.relu)
            ):
                if convolution.groups in (1, convolution.in_channels) and str(chain[1].target) in sides:
                    yield _mean_behind(before, convolution, sides[str(chain[1].target)]), norm


def _sides(module: nn.Module, size_px: tuple[int, int]) -> dict[str, tuple[int, int]]:
    """Height and width of what each convolution takes."""
    sides: dict[str, tuple[int, int]] = {}

    def remember(name: str) -> Any:
        return lambda layer, inputs, _: sides.__setitem__(name, tuple(inputs[0].shape[2:]))

    layers = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, nn.Conv2d)]
    handles = [layer.register_forward_hook(remember(name)) for name, layer in layers]
    try:
        with torch.inference_mode(), suppress(RuntimeError):  # of images too small for it, which the export refuses
            module(torch.zeros((1, 3, *size_px)))
    finally:
        for handle in handles:
            handle.remove()
    return sides


def _mean_behind(before: nn.BatchNorm2d, convolution: nn.Conv2d, sides: tuple[int, int]) -> Tensor:
    mean, deviation = before.bias, before.weight.abs().clamp_min(1e-6)
    place = mean / deviation
    density = torch.exp(-place * place / 2) / math.sqrt(2 * math.pi)
    rectified = mean * (1 + torch.erf(place / math.sqrt(2))) / 2 + deviation * density
    weights = convolution.weight.sum((2, 3))
    result = weights @ rectified if convolution.groups == 1 else weights[:, 0] * rectified
    for side, kernel, padding in zip(sides, convolution.kernel_size, convolution.padding, strict=True):
        if isinstance(padding, int) and padding:  # so much of what the kernel sees is no padding
            result = result * (1 - min(1.0, padding * (padding + 1) / (kernel * side)))
    return result if convolution.bias is None else result + convolution.bias
