"""Open a folder of Hugging Face, of transformers or of timm, for a build."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from batchcls.building.hugging_face.classifier import exportable, load_classifier
from batchcls.building.hugging_face.folder import HuggingFaceFolder, open_folder
from batchcls.building.hugging_face.preprocessing import recipe_of_processor
from batchcls.building.model_sources.base import ModelSource
from batchcls.building.model_sources.checkpoint import float_classifier
from batchcls.building.reference import Reference, tempered, torch_answer
from batchcls.errors import CheckpointError, RecipeError
from batchcls.networks.architectures import timm_wrapper
from batchcls.networks.checkpoint import load_network
from batchcls.networks.export import export_classifier
from batchcls.networks.label_resolution import resolve_labels
from batchcls.networks.onnx_advice import export_advice
from batchcls.networks.preprocess import Preprocess
from batchcls.networks.recipe import PREPROCESS_KEYS, Recipe, recipe_keys

_TRAINING_ARGUMENTS = ("num_classes", "drop_rate", "drop_path_rate", "proj_drop_rate", "attn_drop_rate")
"""Arguments of a network of timm that change nothing of its answers, or that the weights show."""
_SUFFIX = "ForImageClassification"


def open_model(checkpoint: Path, recipe: Path | None, values: Mapping[str, Any]) -> ModelSource:
    """A folder with ``config.json``, with the parameters of `batchcls.building.model_sources.open_model`."""
    if "state_dict" in values:
        raise CheckpointError(f"{str(checkpoint)!r} holds the weights of one network alone; leave --state-dict out")
    folder = open_folder(checkpoint)
    is_timm = isinstance(folder.configuration.get("architecture"), str)
    name, module = _timm_network(folder) if is_timm else _transformers_network(folder)
    defaults, origin = _preprocess_defaults(folder, recipe, values, _timm_recipe if is_timm else _transformers_recipe)
    full = Recipe.compose(recipe, values, {**defaults, "architecture": name})
    if full.architecture != name:
        raise RecipeError(f"{str(checkpoint)!r} says itself what network it is, {name}; leave --architecture out")
    full = replace(full, precision="fp16" if full.precision == "auto" else full.precision)
    classes = _classes(folder, module, full.preprocess)
    names = folder.configuration.get("label_names")
    labels, notes = resolve_labels(folder.weights[0], classes, full.labels, {"labels": names} if names else {})
    return ModelSource(
        recipe=full.with_values({"labels": labels}),
        reference=Reference(tempered(torch_answer(module), full.temperature), full.preprocess),
        reference_name=f"Pillow, torchvision transforms, {name.partition('/')[0]} with torch float32",
        preprocess_origin=origin,
        notes=notes,
        write_onnx=lambda path: export_classifier(exportable(module), full.preprocess, full.precision, path),
        float_network=partial(float_classifier, exportable(module), full.preprocess),
        files=folder.weights,
    )


def _transformers_network(folder: HuggingFaceFolder) -> tuple[str, nn.Module]:
    name, module = load_classifier(folder)
    return f"transformers/{name.replace(_SUFFIX, '')}", module


def _transformers_recipe(folder: HuggingFaceFolder) -> tuple[dict[str, Any], str]:
    """Recipe keys of the preprocessing, and what says them; without a file, the configuration's size alone."""
    if folder.preprocessor is not None:
        return recipe_of_processor(folder), "preprocessor_config.json"
    side = folder.configuration.get("image_size")
    size = [side, side] if isinstance(side, int) else side
    return ({"size_px": size, "shorter_px": max(size)} if isinstance(size, list) and size else {}), ""


def _timm_network(folder: HuggingFaceFolder) -> tuple[str, nn.Module]:
    if len(folder.weights) > 1:
        raise CheckpointError(f"{str(folder.path)!r} divides the weights of a network of timm; save them in one file")
    name = f"timm/{folder.configuration['architecture']}"
    module = load_network(folder.weights[0], name).module
    arguments = folder.configuration.get("model_args") or {}
    if not isinstance(arguments, dict):
        raise CheckpointError(f"{str(folder.path)!r} holds model_args {str(arguments)[:60]}, which must be an object")
    pool = getattr(module, "global_pool", None)
    height, width = timm_wrapper().timm_config(folder.configuration["architecture"])["input_size"][1:]
    usual = {
        "in_chans": (3,),
        "global_pool": (pool if isinstance(pool, str) else getattr(pool, "pool_type", None),),
        "img_size": (height, [height, width]),
    }
    for key, value in arguments.items():
        if key not in _TRAINING_ARGUMENTS and value not in usual.get(key, ()):
            raise CheckpointError(
                f"{str(folder.path)!r} changes timm's network by {key} = {str(value)[:60]}, which batchcls does not "
                f"build; {export_advice()}"
            )
    return name, module


def _timm_recipe(folder: HuggingFaceFolder) -> tuple[dict[str, Any], str]:
    own = folder.configuration.get("pretrained_cfg")
    config = own if isinstance(own, Mapping) else timm_wrapper().timm_config(folder.configuration["architecture"])
    return timm_wrapper().timm_preprocess(config), "pretrained_cfg in config.json" if config is own else "timm"


def _preprocess_defaults(
    folder: HuggingFaceFolder,
    recipe: Path | None,
    values: Mapping[str, Any],
    read: Callable[[HuggingFaceFolder], tuple[dict[str, Any], str]],
) -> tuple[dict[str, Any], str]:
    """Recipe keys that the folder answers for, and what says how images become the input, as a phrase for the user."""
    given = values.keys() | (recipe_keys(recipe) if recipe else set())
    if given >= PREPROCESS_KEYS:
        return {}, ""
    try:
        return read(folder)
    except CheckpointError:
        if "resize" not in given:  # else the user said what the folder could not
            raise
    return {}, ""


def _classes(folder: HuggingFaceFolder, module: nn.Module, preprocess: Preprocess) -> int:
    """Number of logits that the network answers an image of the recipe's size with."""
    try:
        with torch.inference_mode():
            logits = module(torch.zeros((2, 3, *preprocess.size_px)))
        if logits.ndim == 2 and len(logits) == 2 and logits.shape[1] > 1:
            return int(logits.shape[1])
        reason = f"it answers two images with {tuple(logits.shape)}"
    except (RuntimeError, ValueError, TypeError, AttributeError, AssertionError, LookupError) as error:
        reason = " ".join(str(error).split())[:200]
    raise CheckpointError(f"{str(folder.path)!r} does not classify images of {preprocess.size_px} pixels: {reason}")
