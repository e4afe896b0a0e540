"""What a trained file, its library and its recipe say of how images become the network's input."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from batchcls.errors import CheckpointError
from batchcls.networks.architectures import TIMM, timm_wrapper
from batchcls.networks.checkpoint import TrainedNetwork
from batchcls.networks.recipe import PREPROCESS_KEYS, recipe_keys
from batchcls.networks.unpickling_stand_ins import ObjectStandIn, find_values

_TIMM_ARGUMENTS = ("img_size", "input_size", "crop_pct", "crop_mode", "interpolation", "mean", "std")
"""Arguments of timm's training script that say how images become the input."""


def default_preprocess(
    network: TrainedNetwork, metadata: Mapping[str, Any], recipe: Path | None, values: Mapping[str, Any]
) -> tuple[dict[str, Any], str]:
    """Recipe values that apply where neither ``recipe`` nor ``values`` decide, and what decides the preprocessing.

    Args:
        network: The network, with everything in its file.
        metadata: Recipe values in the file's own metadata.
        recipe: TOML file of a recipe.
        values: Recipe values that win over the file.

    Returns:
        The values; and a phrase for the user on what says them, empty if nothing but ``recipe`` and ``values`` does.

    Raises:
        CheckpointError: If timm's configuration of the network cannot be said in a recipe, and nothing else decides.
    """
    gray = {"channels": "L"} if network.in_channels == 1 else {}
    given = set(recipe_keys(recipe) & PREPROCESS_KEYS) if recipe else set()
    given |= PREPROCESS_KEYS & values.keys()
    if given >= PREPROCESS_KEYS:
        return {**gray, **metadata}, ""
    if PREPROCESS_KEYS & metadata.keys():
        return {**gray, **metadata}, "the checkpoint's own metadata"
    defaults, origin = library_preprocess(network.architecture, network.contents, decided="resize" in given)
    if gray:  # mean and std of three channels say nothing of one
        defaults = {key: value for key, value in defaults.items() if key not in ("mean", "std") or len(value) == 1}
    return {**defaults, **gray, **metadata}, origin


def library_preprocess(
    architecture: str, contents: Mapping[Any, Any] | None = None, *, decided: bool = False
) -> tuple[dict[str, Any], str]:
    """Recipe values of the preprocessing that a network's library evaluates with, and whence they are.

    torchvision's networks have no such values: people train them in many ways.

    Args:
        architecture: Name of the architecture.
        contents: Everything in a trained file, in which timm's training script may have left its arguments.
        decided: Whether a recipe says what timm's configuration may not be able to.

    Raises:
        CheckpointError: If no recipe can say what timm's configuration asks for, unless it is ``decided``.
    """
    if not architecture.startswith(TIMM):
        return {}, ""
    name = architecture.removeprefix(TIMM)
    arguments = _timm_arguments(contents or {})
    origin = f"timm's configuration of {name}"
    try:
        values = timm_wrapper().timm_preprocess(timm_wrapper().timm_config(name), arguments)
    except CheckpointError:
        if not decided:
            raise
        return {}, ""
    return values, f"{origin} and the arguments of its training in the file" if arguments else origin


def _timm_arguments(contents: Mapping[Any, Any]) -> dict[str, Any]:
    """The arguments of timm's training script in a checkpoint that say how images become the input."""
    for _, value in find_values(contents, ("args",)):
        arguments = value.attributes() if isinstance(value, ObjectStandIn) else value
        if isinstance(arguments, Mapping):
            return {key: arguments[key] for key in _TIMM_ARGUMENTS if arguments.get(key) not in (None, "")}
    return {}
