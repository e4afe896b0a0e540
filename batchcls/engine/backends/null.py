"""An engine that looks at nothing: what a run costs without inference, and the double that tests run on."""

from pathlib import Path

import numpy as np

from batchcls.engine.manifest import Manifest
from batchcls.records import DevicePixels, EngineInfo, Logits, Pixels


def open(manifest: Manifest, onnx: Path, *, device: str, threads: int, precision: str | None = None) -> "NullEngine":
    """The engine of `batchcls.engine.backends.open_engine`; it never reads the network."""
    return NullEngine(manifest.info(backend="null", device=device, precision="none"))


class NullEngine:
    """Answers with logits that follow from an image's mean colour, so that rows can be told apart; on a GPU with 0."""

    batch_size = 64
    lanes = 1

    def __init__(self, info: EngineInfo) -> None:
        self.info = info

    def infer(self, pixels: Pixels | DevicePixels) -> Logits:
        self.info.check_pixels(pixels)
        if isinstance(pixels, DevicePixels):
            return np.zeros((len(pixels), len(self.info.labels)), np.float32)
        phase = pixels[:, ::16, ::16].mean(axis=(1, 2, 3), dtype=np.float32)[:, None]
        return np.asarray(np.cos(phase + np.arange(len(self.info.labels), dtype=np.float32)))

    def close(self) -> None:
        """Nothing is held."""
