"""Open a trained file of any kind for a build: its recipe, its own answers, and its network as ONNX."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
from torch import nn

from batchcls.building.export import export_classifier, export_network
from batchcls.building.onnx.classifier import OnnxClassifier, load_classifier, onnx_notes
from batchcls.building.onnx.edits import with_preprocessing
from batchcls.building.reference import Reference, tempered, torch_answer
from batchcls.engine.manifest import ONNX
from batchcls.errors import CheckpointError, RecipeError, temporary_files
from batchcls.networks.label_resolution import resolve_labels
from batchcls.networks.recipe import Recipe
from batchcls.networks.trained_file import load_trained_file
from batchcls.records import Preprocess


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A trained file, ready to be built from."""

    recipe: Recipe
    """The complete recipe: every key is settled, none is ``auto``."""
    reference: Reference
    """The trained network's own answers in float32, with the recipe's temperature."""
    reference_name: str
    """Libraries that compute the reference, as engine.json records them."""
    notes: tuple[str, ...]
    """Lines for the user on how the trained file was read."""
    write_onnx: Callable[[Path], None]
    """Function that writes the engine's ONNX file: uint8 pixels in, logits out, in any precision but int8."""
    float_network: Callable[[], OnnxClassifier]
    """Function that returns the network without its preprocessing, in float32, for quantization."""
    weights: str = ""
    """Key of the weights that were taken from a file that holds several; else empty."""


def open_model(checkpoint: Path, recipe: Path | None, values: Mapping[str, Any]) -> ModelSource:
    """Open a PyTorch or safetensors state_dict, or an ONNX classifier.

    Args:
        recipe: TOML file of recipe keys.
        values: Recipe keys that win over the file, and ``weights``.

    Raises:
        CheckpointError: If the trained file cannot be read, or is not the network that the recipe names.
        RecipeError: If the recipe, or the labels, do not fit the trained file.
    """
    if checkpoint.suffix == ".onnx":
        return _open_onnx(checkpoint, recipe, values)
    return _open_weights(checkpoint, recipe, values)


def _open_weights(checkpoint: Path, recipe: Path | None, values: Mapping[str, Any]) -> ModelSource:
    trained = load_trained_file(checkpoint, recipe, values)
    network, full = trained.network, trained.recipe
    full = replace(full, precision="fp16" if full.precision == "auto" else full.precision)
    return ModelSource(
        recipe=full,
        reference=Reference(tempered(torch_answer(network.module), full.temperature), full.preprocess),
        reference_name="Pillow, torchvision transforms, torch float32",
        notes=trained.notes,
        write_onnx=lambda path: export_classifier(network.module, full.preprocess, full.precision, path),
        float_network=lambda: _exported(network.module, full.preprocess),
        weights=network.weights_key if network.other_weights_keys else "",
    )


def _exported(module: nn.Module, preprocess: Preprocess) -> OnnxClassifier:
    with temporary_files(), tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / ONNX
        export_network(module, preprocess, path)
        return load_classifier(path, preprocess=preprocess, outputs="logits")


def _open_onnx(checkpoint: Path, recipe: Path | None, values: Mapping[str, Any]) -> ModelSource:
    if "weights" in values:
        raise CheckpointError(f"{str(checkpoint)!r} is ONNX, which holds one network alone; leave --weights out")
    partial_recipe = Recipe.compose(recipe, values)
    classifier = load_classifier(checkpoint, partial_recipe.layout, partial_recipe.preprocess, partial_recipe.output)
    full = Recipe.compose(recipe, values, _recipe_of_file(classifier))
    _check_preprocess(checkpoint, classifier, full.preprocess)
    precision = _precision(checkpoint, classifier, full.precision)
    metadata = {item.key: item.value for item in classifier.model.metadata_props}
    labels, label_notes = resolve_labels(checkpoint, classifier.classes, full.labels, metadata)
    return ModelSource(
        recipe=full.with_values({"precision": precision, "layout": classifier.layout, "labels": labels}),
        reference=Reference(tempered(classifier.own_logits, full.temperature), full.preprocess),
        reference_name="Pillow, torchvision transforms, the ONNX file itself by ONNX Runtime",
        notes=label_notes + onnx_notes(classifier, full.preprocess),
        write_onnx=lambda path: onnx.save(
            with_preprocessing(classifier.model, classifier.layout, full.preprocess), path
        ),
        float_network=lambda: classifier,
    )


def _recipe_of_file(classifier: OnnxClassifier) -> dict[str, Any]:
    """Recipe keys that an ONNX file answers for."""
    keys: dict[str, Any] = {"architecture": "onnx"}
    if classifier.size_px:
        keys |= {"size_px": classifier.size_px, "shorter_px": max(classifier.size_px)}
    if classifier.takes_bytes:
        keys |= {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    return keys


def _check_preprocess(checkpoint: Path, classifier: OnnxClassifier, preprocess: Preprocess) -> None:
    """Refuse a recipe that sizes or normalizes images otherwise than the ONNX file allows."""
    if classifier.size_px and preprocess.size_px != classifier.size_px:
        raise RecipeError(
            f"{str(checkpoint)!r} takes {classifier.size_px} pixels, the recipe says {preprocess.size_px}; "
            "leave size_px out of the recipe"
        )
    own = _recipe_of_file(classifier)
    if classifier.takes_bytes and (preprocess.mean, preprocess.std) != (own["mean"], own["std"]):
        raise RecipeError(
            f"{str(checkpoint)!r} takes bytes, and normalizes them itself; leave mean and std out of the recipe"
        )


def _precision(checkpoint: Path, classifier: OnnxClassifier, requested: str) -> str:
    """Precision of the engine: the ONNX file's own, or int8 where the file computes in float32."""
    if requested in ("auto", classifier.precision):
        return classifier.precision
    if requested == "int8" and classifier.precision == "fp32" and not classifier.takes_bytes:
        return requested
    raise RecipeError(
        f"{str(checkpoint)!r} computes in {classifier.precision}, which cannot be made {requested}; "
        "export it so, or leave --precision out"
    )
