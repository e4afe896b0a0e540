"""A trained file becomes a network: whichever architecture its tensors fit."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
import torchvision
from torch import Tensor, nn

from batchcls.errors import CheckpointError
from batchcls.networks.architectures import ARCHITECTURES, LAST_LAYERS, TRANSFORMING, empty_network
from batchcls.networks.tensors import read_tensors, read_trained

_SHOWN = 4


@dataclass(frozen=True, slots=True)
class Network:
    """A trained classifier, ready to answer."""

    architecture: str
    classes: int
    module: nn.Module
    """Float32, in eval mode, on the CPU: (N, 3, H, W) normalised to (N, classes) logits."""
    ignored: tuple[str, ...] = ()
    """Tensors beside the network, such as a loss function's weights."""
    weights: str = ""
    """Where in the file its weights stand, if not at the top."""
    others: tuple[str, ...] = ()
    """Where in the file other weights stand."""
    about: Mapping[Any, Any] = field(default_factory=dict)
    """The whole file: labels may be in it, and the name of an architecture."""


def load_network(path: Path, architecture: str = "", *, transform_input: bool = False, weights: str = "") -> Network:
    """The network that ``path`` holds the weights of.

    Reads a state_dict saved by PyTorch or as safetensors: plain, or under any key; under any one prefix; in any
    floating point type; with or without auxiliary heads; whose last layer is a Linear, or a Sequential that holds one.

    Args:
        weights: Which, if the file holds several; see `read_trained`.
        architecture: One of `ARCHITECTURES`; empty: the one that the tensors' names fit.
        transform_input: As torchvision's GoogLeNet and Inception v3 have it; a state_dict does not tell.

    Raises:
        CheckpointError: If the file cannot be read without running code from it, or does not fit the architecture.
    """
    if architecture and architecture not in ARCHITECTURES:
        raise CheckpointError(f"architecture {architecture!r} is not known; known are {', '.join(ARCHITECTURES)}")
    trained = read_trained(path, weights)
    tensors = trained.tensors
    fits = [_Fit.of(name, tensors) for name in ARCHITECTURES]
    closest = max(fits, key=lambda fit: fit.score)
    fit = next((fit for fit in fits if fit.architecture == architecture), closest)
    if fit.missing or fit.unexpected:
        raise CheckpointError(f"{str(path)!r} {_misfit(fit, closest)}")
    if lost := next((name for name, tensor in fit.tensors.items() if not torch.isfinite(tensor).all()), None):
        raise CheckpointError(
            f"{str(path)!r} holds numbers in {lost!r} that are none, or infinite; its training went astray: "
            "build an earlier checkpoint"
        )
    if transform_input and fit.architecture not in TRANSFORMING:
        raise CheckpointError(f"transform_input is true, but {fit.architecture} has no such step; leave it out")
    module = empty_network(fit.architecture, fit.classes, fit.last_layer, transform_input=transform_input)
    module.to_empty(device="cpu").load_state_dict(
        {name: fit.tensors.get(name, torch.zeros(())) for name in module.state_dict()}
    )
    return Network(
        fit.architecture,
        fit.classes,
        module.eval().requires_grad_(False),
        fit.ignored,
        trained.weights,
        trained.others,
        trained.about,
    )


def starting_tensors(path: Path, architecture: str) -> tuple[dict[str, Tensor], int]:
    """What of a trained file an ``architecture`` can begin with, float32, and of how many classes its last layer is.

    Raises:
        CheckpointError: If the file cannot be read, or is of another network.
    """
    tensors = read_tensors(path)
    fit = _Fit.of(architecture, tensors)
    last = [name for name in fit.missing if name.startswith(f"{fit.last_layer.partition('.')[0]}.")]
    if set(fit.missing) - set(last):
        closest = max((_Fit.of(name, tensors) for name in ARCHITECTURES), key=lambda other: other.score)
        raise CheckpointError(f"{str(path)!r} {_misfit(fit, fit if closest.score <= fit.score else closest)}")
    return dict(fit.tensors), 0 if last else fit.classes


def pretrained_tensors(architecture: str) -> dict[str, Tensor]:
    """torchvision's own weights, of ImageNet's 1,000 classes; fetched if this machine has not fetched them before.

    Raises:
        CheckpointError: If there are none, or they cannot be fetched.
    """
    try:
        weights = torchvision.models.get_model_weights(architecture).DEFAULT
        return dict(weights.get_state_dict(progress=False, check_hash=True))
    except (ValueError, AttributeError) as error:
        raise CheckpointError(f"torchvision has no weights of {architecture!r}; train it from scratch") from error
    except (OSError, RuntimeError) as error:
        raise CheckpointError(
            f"torchvision's weights of {architecture!r} could not be fetched from {weights.url} ({error}); "
            "fetch that file elsewhere, and name it: --weights FILE"
        ) from error


@dataclass(frozen=True, slots=True)
class _Fit:
    """How well a file's tensors fit an architecture."""

    architecture: str
    last_layer: str
    """Where its last Linear goes: torchvision's place, or all of ``classifier`` where that was replaced by one."""
    tensors: Mapping[str, Tensor]
    """Float32, under torchvision's names."""
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    """Neither name includes those of a tensor whose shape differs: such a one is in both."""
    ignored: tuple[str, ...]
    score: float

    @property
    def classes(self) -> int:
        return len(self.tensors[f"{self.last_layer}.weight"])

    @classmethod
    def of(cls, architecture: str, tensors: Mapping[str, Tensor]) -> Self:
        wanted = {name: tensor.shape for name, tensor in empty_network(architecture, 1000).state_dict().items()}
        prefix = _prefix(wanted, tensors)
        named = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        last_layer, named = _with_plain_head(LAST_LAYERS[architecture], named)
        container = last_layer.partition(".")[0] + "."
        if last_layer == "classifier":
            features = next(shape for name, shape in wanted.items() if name.startswith(container) and len(shape) == 2)
            wanted = {name: shape for name, shape in wanted.items() if not name.startswith(container)}
            wanted |= {"classifier.weight": features, "classifier.bias": features[:1]}
        given = {name: tensor.shape for name, tensor in named.items()}
        for name in (f"{last_layer}.weight", f"{last_layer}.bias"):
            if name in given and given[name][1:] == wanted[name][1:]:
                wanted[name] = given[name]  # as many classes as there are
        fitting = {name for name, shape in given.items() if wanted.get(name) == shape}
        counted = {name for name in wanted if not name.endswith("num_batches_tracked")}
        return cls(
            architecture=architecture,
            last_layer=last_layer,
            tensors={name: named[name].float() for name in fitting},
            missing=tuple(name for name in wanted if name in counted - fitting),
            unexpected=tuple(name for name in given if name not in fitting),
            ignored=tuple(name for name in tensors if not name.startswith(prefix)),
            score=len(fitting & counted) / len(counted | given.keys()),
        )


def _prefix(wanted: Mapping[str, torch.Size], tensors: Mapping[str, Tensor]) -> str:
    """What a file puts before every one of the network's names, such as ``module.`` or ``model.net.``."""
    first = next(iter(wanted))
    prefixes = {name.removesuffix(first) for name in tensors if name == first or name.endswith("." + first)}
    hits = {prefix: sum(prefix + name in tensors for name in wanted) for prefix in prefixes or {""}}
    best = max(hits, key=lambda prefix: hits[prefix])
    rivals = sorted(prefix for prefix in hits if hits[prefix] == hits[best])
    if len(rivals) > 1 and hits[best] > len(wanted) / 2:
        raise CheckpointError(f"the file holds several networks, under {rivals}; choose one with --weights")
    return best


def _with_plain_head(last_layer: str, tensors: dict[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
    """Where the last Linear goes, and the tensors with the Sequential around it undone."""
    container = last_layer.partition(".")[0]
    for place in dict.fromkeys((last_layer, container)):
        below = [name for name in tensors if name.startswith(f"{place}.")]
        linears = [name for name in below if name.endswith("weight") and tensors[name].ndim == 2]
        if len(linears) == 1:
            found = linears[0].removesuffix("weight")
            moved = {f"{place}." + name.removeprefix(found): tensors[name] for name in below if name.startswith(found)}
            return place, {name: tensor for name, tensor in tensors.items() if not name.startswith(found)} | moved
    return last_layer, tensors


def _misfit(fit: _Fit, closest: _Fit) -> str:
    lacks = f"{len(fit.missing)} of its tensors are missing or of another shape{_shown(fit.missing)}"
    extra = f"{len(fit.unexpected)} are unexpected{_shown(fit.unexpected)}"
    if fit is not closest:
        return (
            f"does not fit {fit.architecture!r}: {lacks}, {extra}; "
            f"it is closest to {closest.architecture!r}: try --architecture {closest.architecture}"
        )
    return (
        f"is closest to {fit.architecture!r}, but {lacks}, {extra}; "
        "a network that was changed can be built from ONNX: torch.onnx.export(...), then batchcls build model.onnx"
    )


def _shown(names: tuple[str, ...]) -> str:
    return f" ({', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''})" if names else ""
