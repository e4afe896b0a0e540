"""Run an engine with PyTorch: the reference, and what there is on a GPU without TensorRT."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from batchcls.engine.manifest import Manifest
from batchcls.errors import EngineError
from batchcls.networks.architectures import ARCHITECTURES, PixelClassifier, empty_network, fused
from batchcls.records import DevicePixels, EngineInfo, Logits, Pixels

_PREFIX = "network."
"""What the export puts before the names of the network's weights."""
_GPU_LANES = 2
"""Batches on their way at one time: the GPU has the next one before the last one's answer is fetched."""
_DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


def open(manifest: Manifest, onnx: Path, *, device: str, threads: int, precision: str | None = None) -> "TorchEngine":
    """The engine of `batchcls.engine.backends.open_engine`: float32 on a CPU, half precision on a GPU.

    Args:
        precision: ``f32``, ``bf16`` or ``f16`` instead.
    """
    if device != "cpu" and not torch.cuda.is_available():
        raise EngineError(f"this PyTorch ({torch.__version__}) cannot use {device!r}; run: batchcls info")
    torch.set_num_threads(threads)
    precision = precision or ("f32" if device == "cpu" else "f16")
    info = manifest.info(backend="torch", device=device, precision=precision)
    return TorchEngine(info, _network(manifest, onnx))


class TorchEngine:
    """The engine's own weights in torchvision's network, channels last; on a GPU captured as CUDA graphs."""

    batch_size = 64
    """On a GPU no other, the last batch padded: a CUDA graph is of one shape."""

    def __init__(self, info: EngineInfo, network: nn.Module) -> None:
        self.info = info
        self.lanes = 1 if info.device == "cpu" else _GPU_LANES
        device = torch.device(info.device)
        classifier = PixelClassifier(network, info.preprocess, _DTYPES[info.precision]).eval()
        self._free: SimpleQueue[Callable[[Tensor], Tensor]] = SimpleQueue()
        with self._translated():
            self._classifier = classifier.to(device).to(memory_format=torch.channels_last)
            for _ in range(self.lanes):
                self._free.put(self._scored_whole if info.device == "cpu" else self._captured())

    def infer(self, pixels: Pixels | DevicePixels) -> Logits:
        self.info.check_pixels(pixels)
        if not len(pixels):
            return np.empty((0, len(self.info.labels)), np.float32)
        score = self._free.get()
        try:
            # The interface of NumPy, or that of CUDA's arrays: neither copies what is where it is wanted.
            images = pixels if isinstance(pixels, DevicePixels) else torch.from_numpy(np.ascontiguousarray(pixels))
            with self._translated(), torch.inference_mode():
                return np.asarray(score(torch.as_tensor(images, device=self.info.device)).cpu().numpy())
        finally:
            self._free.put(score)

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
        with torch.cuda.device(device), torch.inference_mode():
            chunk = torch.zeros((self.batch_size, *self.info.preprocess.size_px, 3), dtype=torch.uint8, device=device)
            side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            side.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(side):
                for _ in range(3):  # what is chosen and compiled at first must not be part of the recording
                    self._classifier(chunk)
            side.synchronize()
            graph = torch.cuda.CUDAGraph()
            # Other threads, which allocate meanwhile, do no harm.
            with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
                answer = self._classifier(chunk)

        def score(pixels: Tensor) -> Tensor:
            logits = torch.empty((len(pixels), answer.shape[1]), device=device)
            with torch.cuda.device(device):
                parts = (torch.split(values, self.batch_size) for values in (pixels, logits))
                for some, into in zip(*parts, strict=True):
                    chunk[: len(some)].copy_(some)
                    graph.replay()
                    into.copy_(answer[: len(some)])
            return logits

        return score

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turns what PyTorch refuses into an error that says so."""
        name, device = self.info.name, self.info.device
        try:
            yield
        except torch.OutOfMemoryError as error:
            free = torch.cuda.mem_get_info(device)[0] >> 20
            raise EngineError(
                f"engine {name!r} does not fit {device}, of which {free:,} MiB are free; choose --device cpu"
            ) from error
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
            raise EngineError(
                f"PyTorch cannot run engine {name!r} on {device}: {reason}; run: batchcls info"
            ) from error


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
    # The exporter leaves out biases that are all zero.
    biases = {name: value for name, value in network.state_dict().items() if name.endswith(".bias")}
    weights = {name: torch.zeros(value.shape) for name, value in biases.items()} | weights
    try:
        network.to_empty(device="cpu").load_state_dict(weights)
    except RuntimeError as error:
        raise EngineError(
            f"{str(path)!r} does not hold {manifest.architecture}'s weights; build the engine again"
        ) from error
    return network
