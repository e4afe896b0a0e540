"""A trained file that can be looked into, and all that it must be fed with."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchcls.errors import CheckpointError
from batchcls.networks.checkpoint import Network, load_network
from batchcls.networks.known_labels import settled_labels
from batchcls.networks.metadata import CheckpointMetadata
from batchcls.networks.recipe import Recipe
from batchcls.networks.variants import variant_warnings


@dataclass(frozen=True, slots=True)
class TrainedFile:
    """A trained file that can be looked into."""

    checkpoint: Path
    network: Network
    recipe: Recipe
    notes: tuple[str, ...] = ()
    """What is worth knowing of how it was read, a line each."""


def trained_file(checkpoint: Path, recipe: Path | None, values: Mapping[str, Any]) -> TrainedFile:
    """A trained file with what the recipe, ``values``, and the file itself tell of it.

    Args:
        values: By the keys of a recipe; and ``weights``, which of the file's, if it holds several.

    Raises:
        CheckpointError: If the file cannot be read, is another network than was said, or an ONNX file.
        RecipeError: If the recipe, or the labels, do not fit it.
    """
    if checkpoint.suffix == ".onnx":
        raise CheckpointError(
            f"{str(checkpoint)!r} is an ONNX file, whose layers cannot be looked into; "
            "Grad-CAM needs the checkpoint that it was exported from: batchcls explain CHECKPOINT ..."
        )
    values = dict(values)
    weights = values.pop("weights", "")
    found = CheckpointMetadata.read(checkpoint).recipe
    first = Recipe.compose(recipe, values, found)
    transform_input = first.preprocess.transform_input
    network = load_network(checkpoint, first.architecture, transform_input=transform_input, weights=weights)
    full = Recipe.compose(recipe, {**values, "architecture": network.architecture}, found)
    named = Recipe.compose(recipe, values).labels
    about = {**network.about, **({"labels": found["labels"]} if "labels" in found else {})}
    labels, notes = settled_labels(checkpoint, network.classes, named, about)
    ignored = tuple(f"left out, as no part of {network.architecture}: {name}" for name in network.ignored)
    doubts = variant_warnings(network.module, network.architecture, full.preprocess.size_px, network.about)
    notes = (*_weights_notes(network), *notes, *ignored, *doubts)
    return TrainedFile(checkpoint, network, full.with_values({"labels": labels}), notes)


def _weights_notes(network: Network) -> tuple[str, ...]:
    taken = network.weights or "at the top of the file"
    return tuple(
        f"weights {taken}; left out: {name}, which --weights {name} takes"
        if name
        else f"weights {taken}; left out: those at the top of the file"
        for name in network.others
    )
