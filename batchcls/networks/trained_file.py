"""Open a trained file: its network, and the recipe that describes the images that the network takes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchcls.errors import CheckpointError
from batchcls.networks.checkpoint import TrainedNetwork, load_network
from batchcls.networks.checkpoint_metadata import CheckpointMetadata
from batchcls.networks.label_resolution import resolve_labels
from batchcls.networks.onnx_advice import export_advice
from batchcls.networks.preprocess_defaults import default_preprocess
from batchcls.networks.recipe import Recipe
from batchcls.networks.variant_detection import variant_warnings


@dataclass(frozen=True, slots=True)
class TrainedFile:
    """An open trained file of PyTorch or safetensors."""

    checkpoint: Path
    """Path of the file."""
    network: TrainedNetwork
    recipe: Recipe
    """Complete recipe, with architecture and labels."""
    preprocess_origin: str = ""
    """What says how images become the input, as a phrase; empty: nothing does, it is assumed."""
    notes: tuple[str, ...] = ()
    """Lines to print on the weights and labels that were taken, on tensors that were left out, and warnings."""


def load_trained_file(checkpoint: Path, recipe: Path | None, values: Mapping[str, Any]) -> TrainedFile:
    """An open trained file, with a recipe from ``values``, the TOML file ``recipe`` and the file's own metadata.

    Args:
        checkpoint: The trained file.
        recipe: TOML file, whose values win over the metadata of the trained file.
        values: Values by recipe key, which override the TOML file and the metadata; also ``state_dict``, which selects
            one of several sets of weights, see `read_trained_tensors`.

    Raises:
        CheckpointError: If the file cannot be read, does not fit the architecture, or is an ONNX file.
        RecipeError: If the recipe or the labels do not fit the network.
    """
    if checkpoint.suffix == ".onnx":
        raise CheckpointError(
            f"{str(checkpoint)!r} is an ONNX file, whose layers cannot be looked into; "
            "Grad-CAM needs the checkpoint that it was exported from: batchcls explain CHECKPOINT ..."
        )
    values = dict(values)
    weights = values.pop("state_dict", "")
    metadata = CheckpointMetadata.read(checkpoint).recipe
    partial = Recipe.compose(recipe, values, metadata)  # the architecture may still be unknown
    transform_input = partial.preprocess.transform_input
    network = load_network(checkpoint, partial.architecture, transform_input=transform_input, weights=weights)
    given = {**values, "architecture": network.architecture}
    defaults, origin = default_preprocess(network, metadata, recipe, given)
    complete = Recipe.compose(recipe, given, defaults)
    if complete.preprocess.channel_count != network.in_channels:
        raise CheckpointError(
            f"{str(checkpoint)!r} takes images of {network.in_channels} channel(s), and the recipe says channels "
            f"{complete.preprocess.channels!r}; leave channels out of it"
        )
    given_labels = Recipe.compose(recipe, values).labels
    contents = {**network.contents, **({"labels": metadata["labels"]} if "labels" in metadata else {})}
    labels, label_notes = resolve_labels(checkpoint, network.classes, given_labels, contents)
    ignored = tuple(f"left out, as no part of {network.architecture}: {name}" for name in network.ignored)
    warnings = variant_warnings(network.module, network.architecture, complete.preprocess.size_px, network.contents)
    notes = (*_weights_notes(network), *network.notes, *label_notes, *ignored, *_head_notes(network), *warnings)
    return TrainedFile(checkpoint, network, complete.with_values({"labels": labels}), origin, notes)


def _head_notes(network: TrainedNetwork) -> tuple[str, ...]:
    """A warning that a head of several layers was read with activations that the file does not name."""
    head = network.head
    if head is None or not head.activations:
        return ()
    return (
        f"warning: its head {head.place!r} is read as {head.description()}: the file does not say what stands between "
        "the layers with weights; if it is not ReLU (and Dropout, which does nothing here), the engine will answer "
        f"wrongly and --verify will not show it; then {export_advice()}",
    )


def _weights_notes(network: TrainedNetwork) -> tuple[str, ...]:
    taken = network.weights_key or "at the top of the file"
    return tuple(
        f"weights {taken}; left out: {name}, which --state-dict {name} takes"
        if name
        else f"weights {taken}; left out: those at the top of the file"
        for name in network.other_weights_keys
    )
