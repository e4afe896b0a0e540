"""Open an ONNX classifier for a build."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

from batchcls.building.model_sources.base import ModelSource
from batchcls.building.onnx.classifier import OnnxClassifier, classifier_from_model, onnx_notes, read_model, takes_gray
from batchcls.building.onnx.edits import with_preprocessing
from batchcls.building.reference import Reference, tempered
from batchcls.errors import CheckpointError, RecipeError
from batchcls.networks.label_resolution import resolve_labels
from batchcls.networks.preprocess import Preprocess
from batchcls.networks.recipe import Recipe


def open_model(checkpoint: Path, recipe: Path | None, values: Mapping[str, Any]) -> ModelSource:
    """An ONNX file, with the parameters of `batchcls.building.model_sources.open_model`."""
    if "state_dict" in values:
        raise CheckpointError(f"{str(checkpoint)!r} is ONNX, which holds one network alone; leave --state-dict out")
    model = read_model(checkpoint)
    partial = Recipe.compose(recipe, values, {"channels": "L"} if takes_gray(checkpoint, model) else {})
    classifier = classifier_from_model(checkpoint, model, partial.layout, partial.preprocess, partial.output)
    full = Recipe.compose(recipe, values, _recipe_of_file(classifier))
    _check_preprocess(checkpoint, classifier, full.preprocess)
    precision = _precision(checkpoint, classifier, full.precision)
    metadata = {item.key: item.value for item in classifier.model.metadata_props}
    labels, label_notes = resolve_labels(checkpoint, classifier.classes, full.labels, metadata)
    return ModelSource(
        recipe=full.with_values({"precision": precision, "layout": classifier.layout, "labels": labels}),
        reference=Reference(tempered(classifier.own_logits, full.temperature), full.preprocess),
        reference_name="Pillow, torchvision transforms, the ONNX file itself by ONNX Runtime",
        preprocess_origin="",
        notes=label_notes + onnx_notes(classifier, full.preprocess),
        write_onnx=lambda path: onnx.save(
            with_preprocessing(classifier.model, classifier.layout, full.preprocess), path
        ),
        float_network=lambda: classifier,
    )


def _recipe_of_file(classifier: OnnxClassifier) -> dict[str, Any]:
    """Recipe keys that an ONNX file answers for."""
    keys: dict[str, Any] = {"architecture": "onnx", "channels": classifier.channels}
    if classifier.size_px:
        keys |= {"size_px": classifier.size_px, "shorter_px": max(classifier.size_px)}
    if classifier.takes_bytes:
        count = 1 if classifier.channels == "L" else 3
        keys |= {"mean": (0.0,) * count, "std": (1.0,) * count}
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
