"""Load a trained file as a network of the architecture that its tensors fit."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from batchcls.errors import CheckpointError
from batchcls.networks.architecture_identification import Identification, closest_architectures, identify
from batchcls.networks.architecture_match import ArchitectureMatch
from batchcls.networks.architectures import check_architecture, loaded_network
from batchcls.networks.heads import Head
from batchcls.networks.onnx_advice import export_advice
from batchcls.networks.tensors import TrainedTensors, read_trained_tensors
from batchcls.networks.torchvision_networks import TRANSFORM_INPUT_ARCHITECTURES


@dataclass(frozen=True, slots=True)
class TrainedNetwork:
    """A trained classifier with its weights."""

    architecture: str
    """Name that `is_architecture`."""
    classes: int
    """Number of logits."""
    module: nn.Module
    """Network in eval mode on the CPU, from normalized (N, ``in_channels``, H, W) float32 to (N, classes) logits."""
    head: Head | None = None
    """Layers that replace a part of the network; None: the network as its library makes it."""
    in_channels: int = 3
    """Channels of the input: 3, or 1."""
    ignored: tuple[str, ...] = ()
    """Names of tensors in the file that are no part of the network, such as a loss function's weights."""
    weights_key: str = ""
    """Keys, joined by dots, under which the file holds the weights; empty: the weights are at the top of the file."""
    other_weights_keys: tuple[str, ...] = ()
    """Keys of other weights in the file that could be loaded instead."""
    contents: Mapping[Any, Any] = field(default_factory=dict)
    """Everything in the file, such as labels or an architecture's name, with stand-ins for its objects."""
    notes: tuple[str, ...] = ()
    """Lines for the user on what decided the architecture."""


def load_network(
    path: Path, architecture: str = "", *, transform_input: bool = False, weights: str = ""
) -> TrainedNetwork:
    """The network whose weights a trained file holds.

    The file holds a state_dict, saved by PyTorch or as safetensors. The state_dict may be under any key, have one
    prefix before all names, be of any floating point type, and have auxiliary heads. The network's last layer may have
    been replaced by a Linear, or by a Sequential that ends with one.

    Args:
        path: The trained file.
        architecture: Name of the architecture; empty: the one that the file names, or the only one that its tensors
            fit.
        transform_input: Whether the network has torchvision's ``transform_input``, which a state_dict does not record.
        weights: Which weights to load if the file holds several; see `read_trained_tensors`.

    Raises:
        CheckpointError: If the file cannot be read without running code from it, or does not fit the architecture, or
            several that compute differently.
        RecipeError: If there is no such architecture.
    """
    if architecture:
        check_architecture(architecture)
    trained = read_trained_tensors(path, weights)
    found = identify(path, trained) if not architecture else Identification(architecture)
    check_architecture(found.architecture)
    fit = ArchitectureMatch.of(found.architecture, trained.tensors)
    if not fit.fits:
        raise CheckpointError(
            f"{str(path)!r} does not fit {fit.architecture!r}: {fit.misfit()}; {_remedy(fit, trained)}"
        )
    if not_finite := next((name for name, tensor in fit.tensors.items() if not torch.isfinite(tensor).all()), None):
        raise CheckpointError(
            f"{str(path)!r} holds values in {not_finite!r} that are NaN or infinite; its training went astray: "
            "build an earlier checkpoint"
        )
    if transform_input and fit.architecture not in TRANSFORM_INPUT_ARCHITECTURES:
        raise CheckpointError(f"transform_input is true, but {fit.architecture} has no such step; leave it out")
    module = loaded_network(
        fit.architecture,
        fit.tensors,
        fit.classes,
        fit.head,
        in_channels=fit.in_channels,
        transform_input=transform_input,
    )
    return TrainedNetwork(
        architecture=fit.architecture,
        classes=fit.classes,
        module=module,
        head=fit.head,
        in_channels=fit.in_channels,
        ignored=fit.ignored,
        weights_key=trained.weights_key,
        other_weights_keys=trained.other_weights_keys,
        contents=trained.contents,
        notes=found.notes,
    )


def starting_tensors(path: Path, architecture: str) -> tuple[dict[str, Tensor], int]:
    """The tensors of a trained file that a training of ``architecture`` can start from, and the number of its classes.

    Returns:
        Float32 tensors on the CPU under the network's names; and the number of classes of the last layer, 0 if the file
        has no such layer as the network has.

    Raises:
        CheckpointError: If the file cannot be read, or is of another architecture.
    """
    trained = read_trained_tensors(path)
    fit = ArchitectureMatch.of(architecture, trained.tensors)
    container = fit.last_layer.partition(".")[0]
    if any(name.partition(".")[0] != container for name in fit.missing):
        raise CheckpointError(f"{str(path)!r} does not fit {architecture!r}: {fit.misfit()}; {_remedy(fit, trained)}")
    if fit.head is None:
        return dict(fit.tensors), 0 if fit.missing else fit.classes
    if len(fit.head.layers) > 1 or fit.head.place != fit.last_layer:
        return {name: tensor for name, tensor in fit.tensors.items() if name.partition(".")[0] != container}, 0
    inner = f"{fit.last_layer}.{fit.head.layers[0].name}."
    return {name.replace(inner, f"{fit.last_layer}."): tensor for name, tensor in fit.tensors.items()}, fit.classes


def _remedy(fit: ArchitectureMatch, trained: TrainedTensors) -> str:
    """The end of an error on a file that does not fit an architecture."""
    closest = closest_architectures(trained.tensors)
    if closest and fit.architecture not in closest:
        return f"it is closest to {closest[0]!r}: try --architecture {closest[0]}"
    return f"a network that was changed can be built from ONNX: {export_advice()}"
