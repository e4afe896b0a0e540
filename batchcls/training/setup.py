"""What a training begins with: a recipe, a network, its first weights, and the arithmetic."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from batchcls import machine
from batchcls.errors import RecipeError, TrainingError
from batchcls.networks.architectures import ARCHITECTURES, TRANSFORMING, trainable_network
from batchcls.networks.checkpoint import pretrained_tensors, starting_tensors
from batchcls.networks.metadata import CheckpointMetadata
from batchcls.networks.recipe import Recipe
from batchcls.training.module import Arithmetic

IMAGENET = "imagenet"
_LEARNING_RATE = 1e-3
_DEFAULT = "googlenet"


def starting_recipe(path: Path | None, values: Mapping[str, Any], weights: str) -> Recipe:
    """The recipe of ``path`` and ``values``, which win; GoogLeNet's if neither names an architecture.

    Raises:
        RecipeError: If it is of no network that is known.
    """
    recipe = Recipe.compose(path, values)
    architecture = recipe.architecture or _DEFAULT
    if architecture not in ARCHITECTURES:
        raise RecipeError(f"architecture {architecture!r} is not known; known are {', '.join(ARCHITECTURES)}")
    # torchvision's own weights of these two expect it, see `Preprocess.transform_input`.
    found = {"transform_input": weights == IMAGENET and architecture in TRANSFORMING}
    recipe = Recipe.compose(path, {**values, "architecture": architecture}, found)
    if recipe.preprocess.transform_input and architecture not in TRANSFORMING:
        raise RecipeError(f"transform_input is true, but {architecture} has no such step; leave it out")
    return recipe


def ordered_labels(asked: Sequence[str], found: Sequence[str]) -> tuple[str, ...]:
    """Those of the images, in the order of a recipe that names them.

    Raises:
        RecipeError: If it names others.
    """
    if asked and sorted(asked) != sorted(found):
        raise RecipeError(f"the recipe has the labels {list(asked)}, the images {list(found)}; leave labels out of it")
    return tuple(asked or found)


def fresh_network(recipe: Recipe) -> nn.Module:
    """A network with random weights, which is known to take images of the recipe's size.

    Raises:
        RecipeError: If it cannot.
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


def arithmetic(asked: Arithmetic, device: str) -> Arithmetic:
    """``bf16`` or ``fp32``; of ``auto``, bfloat16 where the hardware has it: emulated, it is slower than float32.

    Raises:
        TrainingError: If this PyTorch cannot use the device.
    """
    if device != "cpu" and not torch.cuda.is_available():
        raise TrainingError(f"PyTorch {torch.__version__} cannot use {device}; install one for CUDA, or: --device cpu")
    if asked != "auto":
        return asked
    has = machine.has_bfloat16() if device == "cpu" else torch.cuda.get_device_capability(device) >= (8, 0)
    return "bf16" if has else "fp32"


def suited_rate(network: nn.Module) -> float:
    """Adam's learning rate: 0.001, and a tenth of it for a network without batch normalisation, which VGG16 needs.

    At 0.001 it answered four classes of smears by chance as long as it was watched. torchvision's own references train
    AlexNet and VGG with a tenth of the others' rate as well.
    """
    normalised = any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    return _LEARNING_RATE if normalised else _LEARNING_RATE / 10


def load_initial_weights(network: nn.Module, recipe: Recipe, weights: str, images: str) -> str:
    """Put the weights to begin with into ``network``, and say which.

    Args:
        weights: A trained file; ``imagenet``: torchvision's; empty: leave what is there.
        images: `SplitDataset.digest` of those that it is to learn from, and be judged by.

    Raises:
        CheckpointError: If they cannot be read or fetched, or do not fit.
    """
    if not weights:
        return f"{recipe.architecture} from scratch"
    if weights == IMAGENET:
        tensors, classes, before = pretrained_tensors(recipe.architecture), 0, ""
    else:
        tensors, classes = starting_tensors(Path(weights), recipe.architecture)
        before = CheckpointMetadata.read(Path(weights)).images
    own = network.state_dict()
    taken = {name: value for name, value in tensors.items() if name in own and own[name].shape == value.shape}
    network.load_state_dict(taken, strict=False)
    head = "" if classes == len(recipe.labels) else ", but for the last layer"
    begun = f"{recipe.architecture} from {weights}{head}: {len(taken):,} of {len(own):,} tensors"
    if before not in ("", images):
        begun += (
            f"; {weights} learned from other images, or from these parted otherwise: it may know some that "
            "validate or test here, and their accuracy would be too good"
        )
    return begun
