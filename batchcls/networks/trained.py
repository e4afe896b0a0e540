"""A trained file that can be looked into, and all that it must be fed with."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchcls.engine.manifest import Manifest, sha256
from batchcls.errors import CheckpointError, EngineError
from batchcls.networks.architectures import ARCHITECTURES
from batchcls.networks.checkpoint import Network, load_network
from batchcls.networks.known_labels import settled_labels
from batchcls.networks.metadata import Recorded
from batchcls.networks.recipe import Recipe
from batchcls.networks.variants import variant_warnings
from batchcls.storage.file_names import original


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
    found = Recorded.read(checkpoint).recipe
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


def trained_file_of_engine(folder: Path, checkpoint: Path | None) -> TrainedFile:
    """The trained file that an engine was built from, with the engine's labels and preprocessing.

    Args:
        checkpoint: None: a file of the right name and content in the engine folder, or beside it.

    Raises:
        EngineError: If the engine was built from ONNX, or its trained file is not there.
        CheckpointError: If the trained file cannot be read.
    """
    manifest = Manifest.read(folder)
    if manifest.architecture not in ARCHITECTURES or manifest.checkpoint.endswith(".onnx"):
        raise EngineError(
            f"engine {str(folder)!r} was built from the ONNX file {manifest.checkpoint!r}, whose layers cannot be "
            "looked into; Grad-CAM needs the checkpoint that it was exported from: batchcls explain CHECKPOINT ..."
        )
    path = checkpoint or _beside(folder, manifest)
    if (found := sha256(path)) != manifest.checkpoint_sha256:
        raise EngineError(
            f"engine {str(folder)!r} was built from {manifest.checkpoint!r} with SHA-256 {manifest.checkpoint_sha256}, "
            f"{str(path)!r} has {found}; name the right file: --checkpoint FILE"
        )
    recipe = Recipe(
        manifest.architecture, manifest.labels, temperature=manifest.temperature, preprocess=manifest.preprocess
    )
    transform_input = manifest.preprocess.transform_input
    network = load_network(path, manifest.architecture, transform_input=transform_input, weights=manifest.weights)
    if len(recipe.labels) != network.classes:
        raise EngineError(
            f"engine {str(folder)!r} names {len(recipe.labels)} labels, {str(path)!r} has {network.classes}"
        )
    return TrainedFile(path, network, recipe)


def _beside(folder: Path, manifest: Manifest) -> Path:
    name = Path(original(manifest.checkpoint)).name
    for path in (folder / name, folder.absolute().parent / name):
        if path.is_file() and sha256(path) == manifest.checkpoint_sha256:
            return path
    raise EngineError(
        f"Grad-CAM needs {manifest.checkpoint!r}, the trained file of engine {str(folder)!r} with SHA-256 "
        f"{manifest.checkpoint_sha256}, which is neither in that folder nor beside it; name it: --checkpoint FILE"
    )


def _weights_notes(network: Network) -> tuple[str, ...]:
    taken = network.weights or "at the top of the file"
    return tuple(
        f"weights {taken}; left out: {name}, which --weights {name} takes"
        if name
        else f"weights {taken}; left out: those at the top of the file"
        for name in network.others
    )
