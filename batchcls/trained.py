"""A trained file that can be looked into, and all that it must be fed with."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchcls.checkpoint import Network, load_network
from batchcls.errors import CheckpointError, EngineError, RecipeError
from batchcls.file_names import original
from batchcls.manifest import Manifest, sha256
from batchcls.networks import ARCHITECTURES
from batchcls.recipe import Recipe
from batchcls.recorded import Recorded


@dataclass(frozen=True, slots=True)
class TrainedFile:
    """A trained file that can be looked into."""

    checkpoint: Path
    network: Network
    recipe: Recipe


def trained_file(checkpoint: Path, recipe: Path | None, values: Mapping[str, Any]) -> TrainedFile:
    """A trained file with what the recipe, ``values`` by the names of its keys, and the file itself tell of it.

    Raises:
        CheckpointError: If the file cannot be read, is another network than was said, or an ONNX file.
        RecipeError: If the recipe, or the labels, do not fit it.
    """
    if checkpoint.suffix == ".onnx":
        raise CheckpointError(
            f"{str(checkpoint)!r} is an ONNX file, whose layers cannot be looked into; "
            "Grad-CAM needs the checkpoint that it was exported from: batchcls explain CHECKPOINT ..."
        )
    found = Recorded.read(checkpoint).recipe
    first = Recipe.compose(recipe, values, found)
    network = load_network(checkpoint, first.architecture, transform_input=first.preprocess.transform_input)
    return _fitting(
        checkpoint, network, Recipe.compose(recipe, {**values, "architecture": network.architecture}, found)
    )


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
    return _fitting(path, load_network(path, manifest.architecture, transform_input=transform_input), recipe)


def _beside(folder: Path, manifest: Manifest) -> Path:
    name = Path(original(manifest.checkpoint)).name
    for path in (folder / name, folder.absolute().parent / name):
        if path.is_file() and sha256(path) == manifest.checkpoint_sha256:
            return path
    raise EngineError(
        f"Grad-CAM needs {manifest.checkpoint!r}, the trained file of engine {str(folder)!r} with SHA-256 "
        f"{manifest.checkpoint_sha256}, which is neither in that folder nor beside it; name it: --checkpoint FILE"
    )


def _fitting(checkpoint: Path, network: Network, recipe: Recipe) -> TrainedFile:
    if len(recipe.labels) != network.classes:
        named = f"{len(recipe.labels)} labels were named" if recipe.labels else "none was named"
        raise RecipeError(
            f"{str(checkpoint)!r} has {network.classes} classes, {named}; name them in its order: --labels A,B,..."
        )
    return TrainedFile(checkpoint, network, recipe)
