"""Open a Keras classifier, a `.keras` or `.h5` file, for a build."""

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from batchcls.building.keras.contents import KerasFile, opened_keras_file
from batchcls.building.keras.library import keras_library
from batchcls.building.keras.network import KerasNetwork, load_keras_network
from batchcls.building.keras.preprocessing import application, own_preprocessing
from batchcls.building.model_sources.base import ModelSource
from batchcls.building.onnx.classifier import OnnxClassifier, load_classifier
from batchcls.building.onnx.edits import with_preprocessing
from batchcls.building.reference import Answer, Reference, tempered
from batchcls.engine.manifest import ONNX
from batchcls.errors import CheckpointError, RecipeError, temporary_files
from batchcls.networks.export import export_module
from batchcls.networks.label_resolution import resolve_labels
from batchcls.networks.recipe import Recipe
from batchcls.records import Logits, NormalizedImages

_BATCH_SIZE = 16
"""Images that Keras answers at a time."""


def open_model(checkpoint: Path, recipe: Path | None, values: Mapping[str, Any]) -> ModelSource:
    """A Keras file, with the parameters of `batchcls.building.model_sources.open_model`."""
    if "state_dict" in values:
        raise CheckpointError(f"{str(checkpoint)!r} holds the weights of one network alone; leave --state-dict out")
    keras_library()
    with opened_keras_file(checkpoint) as contents:
        model = load_keras_network(checkpoint, contents)
        notes = _precision_notes(contents)
    network = KerasNetwork(model, _layout(checkpoint, model)).eval()
    defaults, origin = _recipe_of_file(model, network.layout)
    full = _recipe(checkpoint, Recipe.compose(recipe, values, defaults), defaults)
    classifier = _exported(checkpoint, network, full)
    labels, label_notes = resolve_labels(checkpoint, classifier.classes, full.labels, {})
    stated = all(getattr(full.preprocess, key) == defaults[key] for key in ("mean", "std"))
    return ModelSource(
        recipe=full.with_values({"layout": classifier.layout, "labels": labels}),
        reference=Reference(tempered(_answer(network, classifier), full.temperature), full.preprocess),
        reference_name="Pillow, torchvision transforms, Keras with torch float32",
        preprocess_origin=origin if stated else "",
        notes=label_notes + notes,
        write_onnx=lambda path: onnx.save(
            with_preprocessing(classifier.model, classifier.layout, full.preprocess), path
        ),
        float_network=lambda: classifier,
    )


def _layout(checkpoint: Path, model: Any) -> str:
    """``NCHW`` or ``NHWC``, of the one input of images that the network must have."""
    shapes = [tuple(tensor.shape) for tensor in (*model.inputs, *model.outputs)]
    if len(model.inputs) != 1 or len(model.outputs) != 1 or len(shapes[0]) != 4:
        raise CheckpointError(
            f"{str(checkpoint)!r} takes {len(model.inputs)} inputs of shape {shapes[0]} and has {len(model.outputs)} "
            "outputs; a classifier takes one image, (height, width, 3), and has one output"
        )
    for channels in (3, 1):
        if channels in (shapes[0][1], shapes[0][3]):
            return "NHWC" if shapes[0][3] == channels else "NCHW"
    raise CheckpointError(
        f"{str(checkpoint)!r} takes images of shape {shapes[0][1:]}, neither three channels of color nor one of gray; "
        "put a first layer in front that turns R, G and B to what the network takes"
    )


def _recipe_of_file(model: Any, layout: str) -> tuple[dict[str, Any], str]:
    """Recipe keys that the network answers for, and what says how images become its input, as a phrase."""
    own, known = own_preprocessing(model), application(model)
    name = known[0] if known else re.sub(r"[^\w.-]+", "_", model.name)[:64]
    keys: dict[str, Any] = {"architecture": f"keras/{name}", "channels": "RGB", "mean": (0.0,) * 3, "std": (1.0,) * 3}
    origin = ""
    if own:
        keys |= own[0]
        origin = own[1]
    elif known:
        keys |= known[1]
        origin = f"keras.applications' preprocess_input of {known[0]}, which is assumed; --recipe changes it"
    (_, *sides) = model.inputs[0].shape
    channels, height, width = sides if layout == "NCHW" else (sides[2], *sides[:2])
    if channels == 1:
        keys |= {"channels": "L", "mean": keys["mean"][:1], "std": keys["std"][:1]}
    if height and width:
        keys |= {"size_px": (height, width), "shorter_px": max(height, width)}
    return keys, origin


def _recipe(checkpoint: Path, recipe: Recipe, defaults: Mapping[str, Any]) -> Recipe:
    """The recipe in the precision of a Keras file, which is float32, or in int8."""
    if recipe.architecture != defaults["architecture"]:
        raise RecipeError(
            f"{str(checkpoint)!r} says itself what network it is, {defaults['architecture']}; leave --architecture out"
        )
    if "size_px" in defaults and recipe.preprocess.size_px != defaults["size_px"]:
        raise RecipeError(
            f"{str(checkpoint)!r} takes {defaults['size_px']} pixels, the recipe says {recipe.preprocess.size_px}; "
            "leave size_px out of the recipe"
        )
    if recipe.precision not in ("auto", "fp32", "int8"):
        raise RecipeError(
            f"{str(checkpoint)!r} is built in fp32, and cannot be made {recipe.precision}; leave --precision out: a "
            "run computes in half precision where the device has it"
        )
    return recipe.with_values({"precision": "fp32" if recipe.precision == "auto" else recipe.precision})


def _exported(checkpoint: Path, network: KerasNetwork, recipe: Recipe) -> OnnxClassifier:
    """The network as an ONNX classifier, with logits for its outputs."""
    example = torch.zeros((2, recipe.preprocess.channel_count, *recipe.preprocess.size_px))
    with temporary_files(), tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / ONNX
        export_module(network, example, path)
        try:
            return load_classifier(path, "NCHW", recipe.preprocess, recipe.output)
        except CheckpointError as error:
            raise CheckpointError(str(error).replace(repr(str(path)), repr(str(checkpoint)))) from error


def _answer(network: KerasNetwork, classifier: OnnxClassifier) -> Answer:
    """Keras's own answers as logits."""

    def answer(images: NormalizedImages) -> Logits:
        parts = [torch.from_numpy(images[start : start + _BATCH_SIZE]) for start in range(0, len(images), _BATCH_SIZE)]
        with torch.inference_mode():
            outputs = np.concatenate([network(part).numpy() for part in parts])
        return classifier.output.logits(outputs.reshape(len(images), -1))

    return answer


def _precision_notes(contents: KerasFile) -> tuple[str, ...]:
    if not contents.precisions:
        return ()
    return (f"trained in {', '.join(contents.precisions)}; built, and compared, in float32",)
