"""The classification networks of torchvision by its own names, as modules without trained weights."""

from typing import Any, cast

import torch
import torchvision
from torch import nn
from torch.overrides import TorchFunctionMode

TRANSFORM_INPUT_ARCHITECTURES = ("googlenet", "inception_v3")
"""Architectures with torchvision's option ``transform_input``, by which the input is normalized a second time."""
_FACTORIES = (torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn)
"""Functions by which modules make their parameters."""


def torchvision_names() -> list[str]:
    """Names of the classification networks of the torchvision that is installed."""
    return cast(list[str], torchvision.models.list_models(module=torchvision.models))


def torchvision_network(name: str, classes: int, *, auxiliary: bool, transform_input: bool = False) -> nn.Module:
    """A network with random weights, in training mode on the CPU.

    Args:
        name: One of `torchvision_names`.
        classes: Number of logits.
        auxiliary: Whether the network has its auxiliary heads, if its architecture has any.
        transform_input: See `TRANSFORM_INPUT_ARCHITECTURES`; ignored for others.
    """
    # Not torchvision's own initialization, 0.01 everywhere: with it GoogLeNet's validation accuracy on four classes of
    # smears was 0.59 after an epoch instead of 0.94, and 0.87 at most after eight.
    inception = {"aux_logits": auxiliary, "init_weights": False, "transform_input": transform_input}
    options = inception if name in TRANSFORM_INPUT_ARCHITECTURES else {}
    return cast(nn.Module, torchvision.models.get_model(name, weights=None, num_classes=classes, **options))


class ParametersOnMeta(TorchFunctionMode):
    """A context in which the parameters of new modules take no memory, while what modules compute with is real.

    PyTorch's own ``torch.device("meta")`` leaves RegNet, whose widths are computed by tensors, without numbers.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        values = dict(kwargs or {})
        if func in _FACTORIES and values.get("device") is None:
            values["device"] = "meta"
        return func(*args, **values)
