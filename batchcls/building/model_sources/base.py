"""A trained file of any kind, open for a build: its recipe, its own answers, and its network as ONNX."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchcls.building.onnx.classifier import OnnxClassifier
from batchcls.building.reference import Reference
from batchcls.networks.recipe import Recipe


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A trained file, ready to be built from."""

    recipe: Recipe
    """The complete recipe: every key is settled, none is ``auto``."""
    reference: Reference
    """The trained network's own answers in float32, with the recipe's temperature."""
    reference_name: str
    """Libraries that compute the reference, as engine.json records them."""
    preprocess_origin: str
    """Source, beside the recipe, of how images become the input, as a phrase for the user; empty if nothing does."""
    notes: tuple[str, ...]
    """Lines for the user on how the trained file was read."""
    write_onnx: Callable[[Path], None]
    """Function that writes the engine's ONNX file: uint8 pixels in, logits out, in any precision but int8."""
    float_network: Callable[[], OnnxClassifier]
    """Function that returns the network without its preprocessing, in float32, for quantization."""
    files: tuple[Path, ...] = ()
    """Files whose SHA-256 the engine records, if the trained file is a folder; else empty."""
    novelty: Mapping[str, Any] | None = None
    """Entry of the trained file's metadata on how the images of the training look; None where there is none."""
    weights: str = ""
    """Key of the weights that were taken from a file that holds several; else empty."""
