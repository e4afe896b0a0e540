"""Signs that weights which fit an architecture belong to a variant with other computations, such as one of timm's."""

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, fx, nn

from batchcls.networks.batch_norm import TRACE_ERRORS
from batchcls.networks.onnx_advice import export_advice
from batchcls.networks.unpickling_stand_ins import find_values

_NETWORK_KEYS = (
    "arch",
    "architecture",
    "model_name",
    "model",
    "backbone",
    "encoder",
    "encoder_name",
    "base_model",
    "net",
)
"""Keys, in lower case, under which a checkpoint names its network."""
_LEAST_CORRELATION = 0.6
"""Smallest correlation of recorded with predicted means that counts as a sign of the same architecture."""
_LEAST_RATIO, _MOST_RATIO = 0.6, 1.8
"""Range of the ratio of recorded to predicted means that counts as a sign of the same architecture.

The ratio was 0.87 to 0.9 for networks trained with ReLU, and 0.46 for the same networks trained with SiLU.
"""
_FEWEST_LAYERS = 3
"""Smallest number of layers from which a variant is inferred."""


def variant_warnings(
    module: nn.Module, architecture: str, size_px: tuple[int, int], contents: Mapping[Any, Any]
) -> list[str]:
    """A warning for each sign that ``module`` computes otherwise than the network whose weights it has.

    Args:
        module: Network in float32 and eval mode on the CPU.
        architecture: Name of the architecture of ``module``.
        size_px: Height and width of the input.
        contents: Everything in the checkpoint, with stand-ins for its objects.
    """
    remedy = (
        "compare its answers with those in training; if it is a variant, such as one of timm's, name that one with "
        f"--architecture, or {export_advice(size_px)}"
    )
    warnings = [
        f"warning: the file says {key} {name!r}, and is taken for {architecture}; {remedy}"
        for key, name in find_values(contents, _NETWORK_KEYS)
        if isinstance(name, str) and _is_variant(name, architecture)
    ]
    if not _consistent(module, size_px):
        warnings.append(
            f"warning: its batch normalizations recorded other activations than {architecture} computes; {remedy}"
        )
    return warnings


def _is_variant(name: str, architecture: str) -> bool:
    """Whether ``name`` is that of another member of the family of ``architecture``, such as a larger ResNet."""
    named, own = (re.sub(r"[\W_]+", "", text.casefold()) for text in (name, architecture))
    family = re.match("[a-z]+?(?=v?[0-9]|$)", own)
    return own not in named and family is not None and bool(re.search(rf"{family[0]}[a-z]{{0,4}}[0-9]", named))


def _consistent(module: nn.Module, size_px: tuple[int, int]) -> bool:
    """Whether each batch normalization recorded the means that follow from the one before it with a ReLU in between.

    The output of a batch normalization is about normally distributed, with a mean and a deviation that are weights. So
    the mean after a ReLU and a convolution follows from weights, without any image; and the next batch normalization
    recorded that mean in training.
    """
    correlations, ratios = [], []
    for predicted, norm in _predictions(module, size_px):
        recorded = norm.running_mean
        if recorded is not None and recorded.abs().max() > 0:  # zeros: the network was never trained
            correlations.append(torch.corrcoef(torch.stack([predicted, recorded]))[0, 1])
            ratios.append((predicted @ recorded) / (predicted @ predicted))
    if len(ratios) < _FEWEST_LAYERS:
        return True
    correlation, ratio = (float(torch.stack(values).nanmedian()) for values in (correlations, ratios))
    return not (correlation < _LEAST_CORRELATION or ratio < _LEAST_RATIO or ratio > _MOST_RATIO)


def _predictions(module: nn.Module, size_px: tuple[int, int]) -> Iterator[tuple[Tensor, nn.BatchNorm2d]]:
    """Pairs of the (channels,) mean that a batch normalization should have recorded, and that batch normalization.

    There is a pair for each batch normalization that follows another one, a ReLU and a convolution; none for a network
    that torch.fx cannot trace.
    """
    if not any(isinstance(layer, nn.BatchNorm2d) for layer in module.modules()):
        return
    try:
        graph = fx.symbolic_trace(module)
    except TRACE_ERRORS:
        return
    modules = dict(graph.named_modules())
    sizes = _input_sizes(module, size_px)
    for node in graph.graph.nodes:
        chain = [node]
        while len(chain) < 4 and chain[-1].args and isinstance(chain[-1].args[0], fx.Node):
            chain.append(chain[-1].args[0])
        layers = [modules.get(str(item.target), item.target) for item in chain]
        match layers:
            case [nn.BatchNorm2d() as norm, nn.Conv2d() as convolution, activation, nn.BatchNorm2d() as before] if (
                isinstance(activation, nn.ReLU | nn.ReLU6) or activation in (F.relu, torch.relu)
            ):
                if convolution.groups in (1, convolution.in_channels) and str(chain[1].target) in sizes:
                    yield _expected_mean(before, convolution, sizes[str(chain[1].target)]), norm


def _input_sizes(module: nn.Module, size_px: tuple[int, int]) -> dict[str, tuple[int, int]]:
    """Height and width of the input of each convolution, by its name."""
    sizes: dict[str, tuple[int, int]] = {}

    def remember(name: str) -> Any:
        return lambda layer, inputs, _: sizes.__setitem__(name, tuple(inputs[0].shape[2:]))

    layers = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, nn.Conv2d)]
    handles = [layer.register_forward_hook(remember(name)) for name, layer in layers]
    try:
        with (
            torch.inference_mode(),
            suppress(RuntimeError),  # images too small for the network, which the export refuses
        ):
            module(torch.zeros((1, layers[0][1].in_channels, *size_px)))
    finally:
        for handle in handles:
            handle.remove()
    return sizes


def _expected_mean(before: nn.BatchNorm2d, convolution: nn.Conv2d, size_px: tuple[int, int]) -> Tensor:
    """(channels,) the mean after a batch normalization, a ReLU and a convolution whose input has ``size_px``."""
    mean, deviation = before.bias, before.weight.abs().clamp_min(1e-6)
    place = mean / deviation
    density = torch.exp(-place * place / 2) / math.sqrt(2 * math.pi)
    rectified = mean * (1 + torch.erf(place / math.sqrt(2))) / 2 + deviation * density
    weights = convolution.weight.sum((2, 3))
    result = weights @ rectified if convolution.groups == 1 else weights[:, 0] * rectified
    for side, kernel, padding in zip(size_px, convolution.kernel_size, convolution.padding, strict=True):
        if isinstance(padding, int) and padding:  # scale by the fraction of the kernel's input that is no padding
            result = result * (1 - min(1.0, padding * (padding + 1) / (kernel * side)))
    return result if convolution.bias is None else result + convolution.bias
