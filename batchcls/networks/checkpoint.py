"""Load a trained file as a network of the architecture that its tensors fit."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
import torchvision
from torch import Tensor, nn

from batchcls.errors import CheckpointError
from batchcls.networks.architectures import ARCHITECTURES, LAST_LAYERS, TRANSFORM_INPUT_ARCHITECTURES, empty_network
from batchcls.networks.tensors import read_tensors, read_trained_tensors

_MOST_NAMED = 4
"""Largest number of tensors that an error names."""


@dataclass(frozen=True, slots=True)
class TrainedNetwork:
    """A trained classifier with its weights."""

    architecture: str
    """One of `ARCHITECTURES`."""
    classes: int
    """Number of logits."""
    module: nn.Module
    """Network in eval mode on the CPU, from (N, 3, H, W) normalized float32 images to (N, classes) logits."""
    ignored: tuple[str, ...] = ()
    """Names of tensors in the file that are no part of the network, such as a loss function's weights."""
    weights_key: str = ""
    """Keys, joined by dots, under which the file holds the weights; empty: the weights are at the top of the file."""
    other_weights_keys: tuple[str, ...] = ()
    """Keys of other weights in the file that could be loaded instead."""
    contents: Mapping[Any, Any] = field(default_factory=dict)
    """Everything in the file, such as labels or an architecture's name, with stand-ins for its objects."""


def load_network(
    path: Path, architecture: str = "", *, transform_input: bool = False, weights: str = ""
) -> TrainedNetwork:
    """The network whose weights a trained file holds.

    The file holds a state_dict, saved by PyTorch or as safetensors. The state_dict may be under any key, have one
    prefix before all names, be of any floating point type, and have auxiliary heads. The network's last layer is a
    Linear, or a Sequential that contains one.

    Args:
        path: The trained file.
        architecture: One of `ARCHITECTURES`; empty: the one that the names and shapes of the tensors fit.
        transform_input: Whether the network has torchvision's ``transform_input``, which a state_dict does not record.
        weights: Which weights to load if the file holds several; see `read_trained_tensors`.

    Raises:
        CheckpointError: If the file cannot be read without running code from it, or does not fit the architecture.
    """
    if architecture and architecture not in ARCHITECTURES:
        raise CheckpointError(f"architecture {architecture!r} is not known; known are {', '.join(ARCHITECTURES)}")
    trained = read_trained_tensors(path, weights)
    tensors = trained.tensors
    fits = [_ArchitectureMatch.of(name, tensors) for name in ARCHITECTURES]
    closest = max(fits, key=lambda fit: fit.score)
    fit = next((fit for fit in fits if fit.architecture == architecture), closest)
    if fit.missing or fit.unexpected:
        raise CheckpointError(f"{str(path)!r} {_misfit(fit, closest)}")
    if not_finite := next((name for name, tensor in fit.tensors.items() if not torch.isfinite(tensor).all()), None):
        raise CheckpointError(
            f"{str(path)!r} holds values in {not_finite!r} that are NaN or infinite; its training went astray: "
            "build an earlier checkpoint"
        )
    if transform_input and fit.architecture not in TRANSFORM_INPUT_ARCHITECTURES:
        raise CheckpointError(f"transform_input is true, but {fit.architecture} has no such step; leave it out")
    module = empty_network(fit.architecture, fit.classes, fit.last_layer, transform_input=transform_input)
    module.to_empty(device="cpu").load_state_dict(
        {name: fit.tensors.get(name, torch.zeros(())) for name in module.state_dict()}
    )
    return TrainedNetwork(
        fit.architecture,
        fit.classes,
        module.eval().requires_grad_(False),
        fit.ignored,
        trained.weights_key,
        trained.other_weights_keys,
        trained.contents,
    )


def starting_tensors(path: Path, architecture: str) -> tuple[dict[str, Tensor], int]:
    """The tensors of a trained file that a training of ``architecture`` can start from, and the number of its classes.

    Returns:
        Float32 tensors on the CPU under torchvision's names; and the number of classes of the last layer, 0 if the file
        has no such layer.

    Raises:
        CheckpointError: If the file cannot be read, or is of another architecture.
    """
    tensors = read_tensors(path)
    fit = _ArchitectureMatch.of(architecture, tensors)
    head = [name for name in fit.missing if name.startswith(f"{fit.last_layer.partition('.')[0]}.")]
    if set(fit.missing) - set(head):
        closest = max((_ArchitectureMatch.of(name, tensors) for name in ARCHITECTURES), key=lambda other: other.score)
        raise CheckpointError(f"{str(path)!r} {_misfit(fit, fit if closest.score <= fit.score else closest)}")
    return dict(fit.tensors), 0 if head else fit.classes


def pretrained_tensors(architecture: str) -> dict[str, Tensor]:
    """torchvision's own weights for ImageNet's 1,000 classes, downloaded unless this machine already has them.

    Raises:
        CheckpointError: If torchvision has no such weights, or they cannot be downloaded.
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
class _ArchitectureMatch:
    """How well a file's tensors fit an architecture."""

    architecture: str
    last_layer: str
    """Name of the last Linear: torchvision's, or ``classifier`` if one Linear replaced torchvision's classifier."""
    tensors: Mapping[str, Tensor]
    """Fitting tensors as float32, under torchvision's names."""
    missing: tuple[str, ...]
    """Names of the architecture's tensors that are not in the file, or have another shape there."""
    unexpected: tuple[str, ...]
    """Names of the file's tensors that are not in the architecture, or have another shape there."""
    ignored: tuple[str, ...]
    """Names of the file's tensors without the prefix of the network."""
    score: float
    """Fraction of the architecture's and the file's names that fit, 0 to 1."""

    @property
    def classes(self) -> int:
        """Number of rows of the last layer."""
        return len(self.tensors[f"{self.last_layer}.weight"])

    @classmethod
    def of(cls, architecture: str, tensors: Mapping[str, Tensor]) -> Self:
        """How well the tensors of a file, by name, fit an architecture with any number of classes."""
        expected = {name: tensor.shape for name, tensor in empty_network(architecture, 1000).state_dict().items()}
        prefix = _prefix(expected, tensors)
        named = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        last_layer, named = _with_plain_head(LAST_LAYERS[architecture], named)
        container = last_layer.partition(".")[0] + "."
        if last_layer == "classifier":
            features = next(shape for name, shape in expected.items() if name.startswith(container) and len(shape) == 2)
            expected = {name: shape for name, shape in expected.items() if not name.startswith(container)}
            expected |= {"classifier.weight": features, "classifier.bias": features[:1]}
        present = {name: tensor.shape for name, tensor in named.items()}
        for name in (f"{last_layer}.weight", f"{last_layer}.bias"):
            if name in present and present[name][1:] == expected[name][1:]:
                expected[name] = present[name]  # the number of classes is the file's
        fitting = {name for name, shape in present.items() if expected.get(name) == shape}
        counted = {name for name in expected if not name.endswith("num_batches_tracked")}
        return cls(
            architecture=architecture,
            last_layer=last_layer,
            tensors={name: named[name].float() for name in fitting},
            missing=tuple(name for name in expected if name in counted - fitting),
            unexpected=tuple(name for name in present if name not in fitting),
            ignored=tuple(name for name in tensors if not name.startswith(prefix)),
            score=len(fitting & counted) / len(counted | present.keys()),
        )


def _prefix(expected: Mapping[str, torch.Size], tensors: Mapping[str, Tensor]) -> str:
    """The prefix, such as ``module.`` or ``model.net.``, that the network's tensors have in a file."""
    first = next(iter(expected))
    prefixes = {name.removesuffix(first) for name in tensors if name == first or name.endswith("." + first)}
    hits = {prefix: sum(prefix + name in tensors for name in expected) for prefix in prefixes or {""}}
    best = max(hits, key=lambda prefix: hits[prefix])
    rivals = sorted(prefix for prefix in hits if hits[prefix] == hits[best])
    if len(rivals) > 1 and hits[best] > len(expected) / 2:
        raise CheckpointError(f"the file holds several networks, under {rivals}; choose one with --state-dict")
    return best


def _with_plain_head(last_layer: str, tensors: dict[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
    """The name of the last Linear, and all tensors, renamed if the Linear is inside a Sequential."""
    container = last_layer.partition(".")[0]
    for place in dict.fromkeys((last_layer, container)):
        below = [name for name in tensors if name.startswith(f"{place}.")]
        linears = [name for name in below if name.endswith("weight") and tensors[name].ndim == 2]
        if len(linears) == 1:
            linear = linears[0].removesuffix("weight")
            moved = {
                f"{place}." + name.removeprefix(linear): tensors[name] for name in below if name.startswith(linear)
            }
            return place, {name: tensor for name, tensor in tensors.items() if not name.startswith(linear)} | moved
    return last_layer, tensors


def _misfit(fit: _ArchitectureMatch, closest: _ArchitectureMatch) -> str:
    """The text for an error: why a file does not fit an architecture, and to which architecture it is closest."""
    lacks = f"{len(fit.missing)} of its tensors are missing or of another shape{_first_names(fit.missing)}"
    extra = f"{len(fit.unexpected)} are unexpected{_first_names(fit.unexpected)}"
    if fit is not closest:
        return (
            f"does not fit {fit.architecture!r}: {lacks}, {extra}; "
            f"it is closest to {closest.architecture!r}: try --architecture {closest.architecture}"
        )
    return (
        f"is closest to {fit.architecture!r}, but {lacks}, {extra}; "
        "a network that was changed can be built from ONNX: torch.onnx.export(...), then batchcls build model.onnx"
    )


def _first_names(names: tuple[str, ...]) -> str:
    return f" ({', '.join(names[:_MOST_NAMED])}{', ...' if len(names) > _MOST_NAMED else ''})" if names else ""
