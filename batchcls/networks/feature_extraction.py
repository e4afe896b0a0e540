"""Let a network of PyTorch answer the features that its engine will have, before there is an engine."""

import copy
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper
from torch import nn

from batchcls.errors import CheckpointError, temporary_files
from batchcls.networks.appearance import appearance
from batchcls.networks.architectures import PixelClassifier
from batchcls.networks.export import export_classifier
from batchcls.networks.feature_layers import LayerTensor, find_layers
from batchcls.networks.feature_layout import FeatureLayer, FeatureLayout
from batchcls.networks.feature_modules import FeatureClassifier, matching_places
from batchcls.networks.preprocess import Preprocess
from batchcls.records import Features, Outputs, Pixels


@dataclass(frozen=True, slots=True)
class FeatureExtractor:
    """A network of PyTorch that answers features beside logits, in float32."""

    layout: FeatureLayout
    module: nn.Module
    """From (N, H, W, 3) uint8 RGB to (N, classes + F) float32, logits first; in eval mode."""
    classes: int
    device: str

    def outputs(self, pixels: Pixels) -> Outputs:
        """Logits and features of (N, H, W, 3) uint8 images, on the host."""
        with torch.inference_mode():
            answers = self.module(torch.from_numpy(pixels).to(self.device)).cpu().numpy()
        return Outputs(answers[:, : self.classes], np.ascontiguousarray(answers[:, self.classes :]))


def feature_extractor(
    network: nn.Module, preprocess: Preprocess, classes: int, examples: Pixels, device: str
) -> FeatureExtractor | None:
    """An extractor of the features that an engine built from ``network`` has; None where it can have none.

    The layers are those of the exported network, and are looked for among the modules by their values.

    Args:
        network: In eval mode; it is copied.
        preprocess: Size and normalization of the network's images.
        classes: Number of logits.
        examples: (N, H, W, 3) uint8 images that differ from one another, by which the modules are found.
        device: ``cpu`` or ``cuda:N``, where the extractor computes.
    """
    network = copy.deepcopy(network).cpu().float().eval()
    try:
        model, layers = _exported(network, preprocess)
    except CheckpointError:  # the build says why
        return None
    if not layers:
        return None
    layout = FeatureLayout(tuple(FeatureLayer(layer.name, layer.width) for layer in layers))
    classifier = PixelClassifier(network, preprocess, torch.float32).eval()
    places = matching_places(classifier, torch.from_numpy(examples), _features(model, layers, examples), layout)
    if not all(places):
        return None
    return FeatureExtractor(layout, FeatureClassifier(classifier, layout, places).eval().to(device), classes, device)


def _exported(network: nn.Module, preprocess: Preprocess) -> tuple[onnx.ModelProto, tuple[LayerTensor, ...]]:
    """A network as ONNX, with the layers that features come from."""
    with temporary_files(), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        export_classifier(network, preprocess, "fp32", path)
        model = onnx.load(path)
    return model, find_layers(model)


def _features(model: onnx.ModelProto, layers: Sequence[LayerTensor], pixels: Pixels) -> Features:
    """(N, F) float32 features of images by ONNX Runtime, on the host."""
    outputs = [helper.make_tensor_value_info(layer.name, layer.element, None) for layer in layers]
    model.graph.output.extend(outputs)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    values = session.run([layer.name for layer in layers], {session.get_inputs()[0].name: pixels})
    pooled = [value.mean(layer.axes) for layer, value in zip(layers, values, strict=True)]
    return np.concatenate([appearance(pixels), *pooled], axis=1, dtype=np.float32)
