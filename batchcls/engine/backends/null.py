"""An engine without a network: it shows what a run costs without inference, and serves tests."""

from pathlib import Path

import numpy as np

from batchcls.engine.base import EngineInfo, EngineOptions
from batchcls.engine.manifest import Manifest
from batchcls.records import DevicePixels, Outputs, Pixels


def open_engine(manifest: Manifest, onnx: Path, options: EngineOptions) -> "NullEngine":
    """A `NullEngine`, with the parameters of `batchcls.engine.backends.open_engine`; the ONNX file is not read."""
    return NullEngine(manifest.info(backend="null", device=options.device, precision="none"))


class NullEngine:
    """Answers with logits computed from an image's mean brightness, so that rows differ; with 0 for images on a GPU."""

    batch_size = 64
    notes = ()
    lanes = 1

    def __init__(self, info: EngineInfo) -> None:
        self.info = info

    def infer(self, pixels: Pixels | DevicePixels) -> Outputs:
        self.info.check_pixels(pixels)
        if isinstance(pixels, DevicePixels):
            return Outputs.without_features(np.zeros((len(pixels), len(self.info.labels)), np.float32))
        phase = pixels[:, ::16, ::16].mean(axis=(1, 2, 3), dtype=np.float32)[:, None]
        return Outputs.without_features(np.cos(phase + np.arange(len(self.info.labels), dtype=np.float32)))

    def close(self) -> None:
        """There is nothing to release."""
