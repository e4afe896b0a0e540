"""Run an engine with PyTorch: the reference, and what there is on a GPU without TensorRT."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from batchcls.errors import EngineError
from batchcls.manifest import Manifest
from batchcls.networks import ARCHITECTURES, PixelClassifier, empty_network, fused
from batchcls.records import DevicePixels, EngineInfo, Logits, Pixels

_PREFIX = "network."
"""What the export puts before the names of the network's weights."""
_DTYPES = {"f32": torch.float32, "f16": torch.float16}


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
    """The engine's own weights in torchvision's network, channels last; on a GPU captured as a CUDA graph."""

    batch_size = 64
    """On a GPU no other, the last batch padded: a CUDA graph is of one shape."""
    lanes = 1

    def __init__(self, info: EngineInfo, network: nn.Module) -> None:
        self.info = info
        device = torch.device(info.device)
        classifier = PixelClassifier(network, info.preprocess, _DTYPES[info.precision]).eval()
        self._classifier = classifier.to(device).to(memory_format=torch.channels_last)
        self._score = self._scored_whole if info.device == "cpu" else self._captured()

    def infer(self, pixels: Pixels | DevicePixels) -> Logits:
        self.info.check_pixels(pixels)
        if not len(pixels):
            return np.empty((0, len(self.info.labels)), np.float32)
        try:
            # The interface of NumPy, or that of CUDA's arrays: neither copies what is where it is wanted.
            images = pixels if isinstance(pixels, DevicePixels) else torch.from_numpy(np.ascontiguousarray(pixels))
            with torch.inference_mode():
                return np.asarray(self._score(torch.as_tensor(images, device=self.info.device)).cpu().numpy())
        except torch.OutOfMemoryError as error:
            raise self._too_large() from error

    def close(self) -> None:
        """The memory goes with the object."""

    def _scored_whole(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self._classifier(pixels)
        return logits

    def _captured(self) -> Callable[[Tensor], Tensor]:
        """The same in chunks of one shape, each a replay of one recording.

        Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
        """
        device = torch.device(self.info.device)
        try:
            with torch.cuda.device(device), torch.inference_mode():
                chunk = torch.zeros(
                    (self.batch_size, *self.info.preprocess.size_px, 3), dtype=torch.uint8, device=device
                )
                side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
                with torch.cuda.stream(side):
                    for _ in range(3):  # what is chosen and compiled at first must not be part of the recording
                        self._classifier(chunk)
                side.synchronize()
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    answer = self._classifier(chunk)
        except torch.OutOfMemoryError as error:
            raise self._too_large() from error

        def score(pixels: Tensor) -> Tensor:
            logits = torch.empty((len(pixels), answer.shape[1]), device=device)
            with torch.cuda.device(device):
                for some, into in zip(
                    torch.split(pixels, self.batch_size), torch.split(logits, self.batch_size), strict=True
                ):
                    chunk[: len(some)].copy_(some)
                    graph.replay()
                    into.copy_(answer[: len(some)])
            return logits

        return score

    def _too_large(self) -> EngineError:
        free = (
            ""
            if self.info.device == "cpu"
            else f", of which {torch.cuda.mem_get_info(self.info.device)[0] >> 20:,} MiB are free"
        )
        return EngineError(f"engine {self.info.name!r} does not fit {self.info.device}{free}; choose --device cpu")


def _network(manifest: Manifest, path: Path) -> nn.Module:
    if manifest.architecture not in ARCHITECTURES or manifest.precision == "int8":
        raise EngineError(
            f"engine {manifest.name!r} was built from {manifest.checkpoint!r} in {manifest.precision}, which PyTorch "
            "cannot run; on the CPU choose --backend openvino, and on a GPU: pip install 'tensorrt>=10.12'"
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
