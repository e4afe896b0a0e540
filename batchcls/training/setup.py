"""The beginning of a training: its recipe, network, initial weights, learning rate and arithmetic."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from batchcls import machine
from batchcls.errors import RecipeError, TrainingError
from batchcls.networks.architectures import check_architecture, trainable_network
from batchcls.networks.checkpoint import starting_tensors
from batchcls.networks.checkpoint_metadata import CheckpointMetadata
from batchcls.networks.preprocess_defaults import library_preprocess
from batchcls.networks.pretrained_weights import pretrained_tensors
from batchcls.networks.recipe import Recipe, recipe_keys
from batchcls.networks.torchvision_networks import TRANSFORM_INPUT_ARCHITECTURES
from batchcls.training.options import Arithmetic

IMAGENET = "imagenet"
"""Name of the library's own weights among initial weights."""
_LEARNING_RATE = 1e-3
_DEFAULT_ARCHITECTURE = "googlenet"


def starting_recipe(path: Path | None, values: Mapping[str, Any], initial_weights: str) -> Recipe:
    """The recipe of a training, with an architecture: GoogLeNet unless the file or ``values`` name another.

    Args:
        path: TOML file of a recipe.
        values: Values by the keys of a recipe, which win over the file's.
        initial_weights: See `TrainOptions.initial_weights`; torchvision's weights decide ``transform_input``.

    Raises:
        RecipeError: If the architecture is not known, or the recipe does not fit it.
    """
    recipe = Recipe.compose(path, values)
    architecture = recipe.architecture or _DEFAULT_ARCHITECTURE
    check_architecture(architecture)
    # torchvision's own weights of these two architectures expect transform_input, see `Preprocess.transform_input`.
    normalizes_twice = initial_weights == IMAGENET and architecture in TRANSFORM_INPUT_ARCHITECTURES
    decided = path is not None and "resize" in recipe_keys(path)
    library_values, _ = library_preprocess(architecture, decided=decided)
    defaults = {"transform_input": normalizes_twice, **library_values}
    recipe = Recipe.compose(path, {**values, "architecture": architecture}, defaults)
    if recipe.preprocess.transform_input and architecture not in TRANSFORM_INPUT_ARCHITECTURES:
        raise RecipeError(f"transform_input is true, but {architecture} has no such step; leave it out")
    if recipe.preprocess.channels == "L":
        raise RecipeError("channels is 'L', but the networks that are trained here take three channels; leave it out")
    return recipe


def ordered_labels(recipe_labels: Sequence[str], image_labels: Sequence[str]) -> tuple[str, ...]:
    """The labels of the images, in the order of the recipe if it names them.

    Raises:
        RecipeError: If the recipe names other labels.
    """
    if recipe_labels and sorted(recipe_labels) != sorted(image_labels):
        raise RecipeError(
            f"the recipe has the labels {list(recipe_labels)}, the images {list(image_labels)}; leave labels out of it"
        )
    return tuple(recipe_labels or image_labels)


def fresh_network(recipe: Recipe) -> nn.Module:
    """A network of the recipe's architecture and labels with random weights, in training mode on the CPU.

    Raises:
        RecipeError: If the network cannot take images of the recipe's size.
    """
    preprocess, classes = recipe.preprocess, len(recipe.labels)
    network = trainable_network(recipe.architecture, classes, transform_input=preprocess.transform_input)
    try:
        with torch.no_grad():
            copy.deepcopy(network)(torch.zeros(2, 3, *preprocess.size_px))
    except RuntimeError as error:
        raise RecipeError(
            f"{recipe.architecture} cannot take images of {preprocess.size_px} pixels: {str(error).splitlines()[0]}"
        ) from error
    return network


def choose_arithmetic(requested: Arithmetic, device: str) -> Arithmetic:
    """The number type of a training: ``bf16`` or ``fp32``.

    ``auto`` becomes bfloat16 only where the hardware has it, for emulated bfloat16 is slower than float32.

    Args:
        requested: Number type that the user asks for.
        device: ``cpu`` or ``cuda:N``.

    Raises:
        TrainingError: If this PyTorch cannot use the device.
    """
    if device != "cpu" and not torch.cuda.is_available():
        raise TrainingError(f"PyTorch {torch.__version__} cannot use {device}; install one for CUDA, or: --device cpu")
    if requested != "auto":
        return requested
    has_bfloat16 = machine.has_bfloat16() if device == "cpu" else torch.cuda.get_device_capability(device) >= (8, 0)
    return "bf16" if has_bfloat16 else "fp32"


def default_learning_rate(network: nn.Module) -> float:
    """Default learning rate of Adam for a network: 0.001, or 0.0001 without batch normalization.

    At 0.001, VGG16 without batch normalization did not get better than chance on four classes of smears. torchvision's
    own references train AlexNet and VGG with a tenth of the others' rate as well.
    """
    normalized = any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    return _LEARNING_RATE if normalized else _LEARNING_RATE / 10


@dataclass(frozen=True, slots=True)
class InitialWeights:
    """Summary of the weights that `load_initial_weights` loaded into a network."""

    source: str
    """Path of a trained file; ``imagenet``: torchvision's or timm's weights; empty: none, the random weights stay."""
    loaded: int = 0
    """Number of tensors that were loaded."""
    tensors: int = 0
    """Number of tensors of the network."""
    last_layer: bool = False
    """Whether the last layer's weights were loaded too."""
    learned_from: str = ""
    """`SplitDataset.digest` of the images that the weights were trained on; empty if not recorded."""


def load_initial_weights(network: nn.Module, recipe: Recipe, source: str) -> InitialWeights:
    """Load all initial weights that fit into ``network``, and return a summary.

    Args:
        network: Network of the recipe's architecture and labels, whose weights are changed.
        source: See `InitialWeights.source`.

    Raises:
        CheckpointError: If the weights cannot be read or fetched, or are of another architecture.
    """
    if not source:
        return InitialWeights(source)
    if source == IMAGENET:
        tensors, classes, learned_from = pretrained_tensors(recipe.architecture), 0, ""
    else:
        tensors, classes = starting_tensors(Path(source), recipe.architecture)
        learned_from = CheckpointMetadata.read(Path(source)).images
    own = network.state_dict()
    fitting = {name: value for name, value in tensors.items() if name in own and own[name].shape == value.shape}
    network.load_state_dict(fitting, strict=False)
    return InitialWeights(source, len(fitting), len(own), classes == len(recipe.labels), learned_from)
