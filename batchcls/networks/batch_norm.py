"""Batch normalizations of a trained network, prepared for an export in half precision."""

import copy
from collections import OrderedDict

import torch
from torch import nn
from torch.fx.experimental.optimization import fuse
from torch.fx.proxy import TraceError
from torch.nn.modules.batchnorm import _BatchNorm

TRACE_ERRORS = (TraceError, TypeError, AttributeError, RuntimeError, ValueError, LookupError)
"""Errors that torch.fx raises for networks that it cannot trace, as where the path depends on the input's shape."""


def fuse_batch_norm(network: nn.Module) -> nn.Module:
    """A copy of ``network`` in which no batch normalization holds statistics, in the same precision.

    Each one is folded into the convolution before it, if the network can be traced. Of all others the statistics move
    into weight and bias: mean 0, variance 1, epsilon 0. So statistics never have to be stored in half precision. The
    other modules keep their names, so that their weights can be identified in an exported ONNX file.

    Args:
        network: Float32, in eval mode.
    """
    copied = copy.deepcopy(network)
    norms = [module for module in copied.modules() if isinstance(module, _BatchNorm)]
    if not norms:
        return copied
    folded = _folded(copied)
    for module in folded.modules():
        if isinstance(module, _BatchNorm):
            _absorb_statistics(module)
    return folded


def _folded(network: nn.Module) -> nn.Module:
    """``network`` with batch normalizations folded into convolutions; unchanged if torch.fx cannot trace it."""
    try:
        folded: nn.Module = fuse(_with_single_layers(network), inplace=True)
    except TRACE_ERRORS:
        return network
    return folded.eval()


def _with_single_layers(network: nn.Module) -> nn.Module:
    """A copy in which each batch normalization with an activation of its own, as timm has it, is two layers."""
    copied = copy.deepcopy(network)
    for name, norm in list(copied.named_modules()):
        drop, act = (getattr(norm, layer, None) for layer in ("drop", "act"))
        if isinstance(norm, nn.BatchNorm2d) and isinstance(drop, nn.Module) and isinstance(act, nn.Module):
            plain = nn.BatchNorm2d(norm.num_features, norm.eps, affine=norm.affine, device=norm.weight.device)
            plain.load_state_dict({key: value for key, value in norm.state_dict().items() if key in plain.state_dict()})
            copied.set_submodule(name, nn.Sequential(OrderedDict(norm=plain.eval(), drop=drop, act=act)))
    return copied


@torch.no_grad()
def _absorb_statistics(norm: _BatchNorm) -> None:
    """Move the running mean and variance of ``norm`` into its weight and bias."""
    if norm.running_mean is None or norm.running_var is None:
        return
    scale = torch.rsqrt(norm.running_var.double() + norm.eps)
    shift = -norm.running_mean.double() * scale
    if norm.affine:
        scale, shift = scale * norm.weight, shift * norm.weight + norm.bias
    dtype = norm.running_var.dtype
    norm.weight, norm.bias = nn.Parameter(scale.to(dtype), False), nn.Parameter(shift.to(dtype), False)
    norm.running_mean.zero_()
    norm.running_var.fill_(1)
    norm.eps = 0.0
    norm.affine = True
