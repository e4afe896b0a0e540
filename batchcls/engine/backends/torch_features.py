"""Let a network of PyTorch answer an engine's features, from the layers that the ONNX file has them from."""

from pathlib import Path

import torch
from torch import nn

from batchcls.engine.manifest import Manifest
from batchcls.engine.probe_features import read_probe_features
from batchcls.engine.probes import draw_probes
from batchcls.networks.architectures import PixelClassifier
from batchcls.networks.feature_modules import FeatureClassifier, matching_places


class FeatureFinder:
    """The engine's own features of its probes, by which the layers are found in a network of PyTorch.

    Args:
        folder: The engine folder.
        manifest: Its manifest.

    Raises:
        EngineError: If the folder holds no features of the probes.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self._manifest = manifest
        self._features = read_probe_features(folder, manifest)
        self.width: int = self._features.shape[1]
        """Number of features of an image."""

    def places(self, network: nn.Module, device: torch.device) -> tuple[tuple[str, ...], str]:
        """Where the layers are in a float32 network, which moves to ``device``; and a note if one is not found.

        There is no place at all if one layer is not found.
        """
        layout, preprocess = self._manifest.features, self._manifest.preprocess
        if layout is None:
            return (), ""
        classifier = PixelClassifier(network, preprocess, torch.float32).eval().to(device)
        pixels = torch.from_numpy(draw_probes(preprocess.size_px, self._manifest.probes)).to(device)
        places = matching_places(classifier, pixels, self._features, layout)
        missing = [layer.name for layer, place in zip(layout.layers, places, strict=True) if not place]
        if missing:
            return (), (
                f"without novelty and embeddings, for PyTorch's {self._manifest.architecture} has no module that "
                f"answers as layer {missing[0]!r}; for these run: batchcls run --backend openvino"
            )
        return places, ""

    def wrapped(self, classifier: PixelClassifier, places: tuple[str, ...]) -> nn.Module:
        """A classifier that answers features behind the logits; ``classifier`` itself if there are no places."""
        layout = self._manifest.features
        return FeatureClassifier(classifier, layout, places).eval() if layout and places else classifier
