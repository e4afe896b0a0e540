"""Open trained files of every kind for a build, one module for each kind."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from batchcls.building.model_sources.base import ModelSource
from batchcls.errors import BatchclsError

_MODULES = {".onnx": "onnx_file", ".keras": "keras_file", ".h5": "keras_file", ".hdf5": "keras_file"}
"""Module that opens a trained file, by the ending of its name; `_FOLDER` opens folders, `_OTHERS` all others."""
_EXTRAS = {"keras_file": "keras"}
"""Extra of pip that installs what a module needs beyond the extra ``build``."""
_OTHERS, _FOLDER = "checkpoint", "hugging_face"


def open_model(checkpoint: Path, recipe: Path | None, values: Mapping[str, Any]) -> ModelSource:
    """Open a PyTorch or safetensors state_dict, an ONNX or a Keras classifier, or a folder of Hugging Face.

    Args:
        recipe: TOML file of recipe keys.
        values: Recipe keys that win over the file, and ``state_dict``.

    Raises:
        CheckpointError: If the trained file cannot be read, or is not the network that the recipe names.
        BatchclsError: If a library that the trained file needs is not installed.
        RecipeError: If the recipe, or the labels, do not fit the trained file.
    """
    kind = _FOLDER if checkpoint.is_dir() else _MODULES.get(checkpoint.suffix.lower(), _OTHERS)
    try:
        module = import_module(f"batchcls.building.model_sources.{kind}")
    except ImportError as error:
        if kind not in _EXTRAS:
            raise
        raise BatchclsError(
            f"building {str(checkpoint)!r} needs {error.name}, which is not installed; "
            f"run: pip install 'batchcls[{_EXTRAS[kind]}]'"
        ) from error
    return cast(ModelSource, module.open_model(checkpoint, recipe, values))
