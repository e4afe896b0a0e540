"""Open a PyTorch or safetensors checkpoint for a build."""

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from batchcls.building.model_sources.base import ModelSource
from batchcls.building.onnx.classifier import OnnxClassifier, load_classifier
from batchcls.building.reference import Reference, tempered, torch_answer
from batchcls.engine.manifest import ONNX
from batchcls.errors import temporary_files
from batchcls.networks.checkpoint_metadata import CheckpointMetadata
from batchcls.networks.export import export_classifier, export_network
from batchcls.networks.preprocess import Preprocess
from batchcls.networks.trained_file import load_trained_file


def open_model(checkpoint: Path, recipe: Path | None, values: Mapping[str, Any]) -> ModelSource:
    """A checkpoint, with the parameters of `batchcls.building.model_sources.open_model`."""
    trained = load_trained_file(checkpoint, recipe, values)
    network, full = trained.network, trained.recipe
    full = replace(full, precision="fp16" if full.precision == "auto" else full.precision)
    return ModelSource(
        recipe=full,
        reference=Reference(tempered(torch_answer(network.module), full.temperature), full.preprocess),
        reference_name="Pillow, torchvision transforms, torch float32",
        preprocess_origin=trained.preprocess_origin,
        notes=trained.notes,
        write_onnx=lambda path: export_classifier(network.module, full.preprocess, full.precision, path),
        float_network=lambda: float_classifier(network.module, full.preprocess),
        novelty=CheckpointMetadata.read(checkpoint).novelty,
        weights=network.weights_key if network.other_weights_keys else "",
    )


def float_classifier(module: nn.Module, preprocess: Preprocess) -> OnnxClassifier:
    """A network without its preprocessing, in float32, as an ONNX classifier with logits, for quantization."""
    with temporary_files(), tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / ONNX
        export_network(module, preprocess, path)
        return load_classifier(path, preprocess=preprocess, outputs="logits")
