"""Run an engine with PyTorch: the reference, and what there is on a GPU without TensorRT."""

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from batchcls.errors import EngineError
from batchcls.manifest import Manifest
from batchcls.networks import ARCHITECTURES, PixelClassifier, empty_network, fused
from batchcls.records import EngineInfo, Logits, Pixels

_PREFIX = "network."
"""What the export puts before the names of the network's weights."""


def open(manifest: Manifest, onnx: Path, *, device: str, threads: int, precision: str | None = None) -> "TorchEngine":
    """The engine of `batchcls.backends.open_engine`: float32 on a CPU, half precision on a GPU.

    Args:
        precision: ``f32`` or ``f16`` instead.
    """
    if device != "cpu" and not torch.cuda.is_available():
        raise EngineError(f"this PyTorch ({torch.__version__}) cannot use {device!r}; run: batchcls info")
    torch.set_num_threads(threads)
    precision = precision or ("f32" if device == "cpu" else "f16")
    info = manifest.info(backend="torch", device=device, precision=precision)
    return TorchEngine(info, _network(manifest, onnx))


class TorchEngine:
    """The engine's own weights in torchvision's network, channels last."""

    def __init__(self, info: EngineInfo, network: nn.Module) -> None:
        self.info = info
        dtype = torch.float32 if info.precision == "f32" else torch.float16
        classifier = PixelClassifier(network, info.preprocess, dtype).eval()
        self._classifier = classifier.to(torch.device(info.device)).to(memory_format=torch.channels_last)

    def infer(self, pixels: Pixels) -> Logits:
        self.info.check_pixels(pixels)
        if not len(pixels):
            return np.empty((0, len(self.info.labels)), np.float32)
        try:
            with torch.inference_mode():
                logits = self._classifier(torch.from_numpy(np.ascontiguousarray(pixels)).to(self.info.device))
            return np.asarray(logits.cpu().numpy())
        except torch.OutOfMemoryError as error:
            raise EngineError(
                f"{len(pixels)} images at a time do not fit {self.info.device}; halve --batch-size"
            ) from error

    def close(self) -> None:
        """The memory goes with the object."""


def _network(manifest: Manifest, path: Path) -> nn.Module:
    if manifest.architecture not in ARCHITECTURES:
        raise EngineError(
            f"engine {manifest.name!r} was built from {manifest.checkpoint!r}, which PyTorch cannot run; "
            "run it with --backend openvino"
        )
    weights = {
        item.name.removeprefix(_PREFIX): torch.from_numpy(numpy_helper.to_array(item).astype(np.float32))
        for item in onnx.load(path).graph.initializer
        if item.name.startswith(_PREFIX)
    }
    last_layer = "classifier" if "classifier.weight" in weights else ""
    network = fused(
        empty_network(
            manifest.architecture,
            len(manifest.labels),
            last_layer,
            transform_input=manifest.preprocess.transform_input,
        )
    )
    try:
        network.to_empty(device="cpu").load_state_dict(weights)
    except RuntimeError as error:
        raise EngineError(
            f"{str(path)!r} does not hold {manifest.architecture}'s weights; build the engine again"
        ) from error
    return network
