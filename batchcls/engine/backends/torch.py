"""Run an engine with PyTorch: the reference on a CPU, and the way on a GPU without TensorRT."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from batchcls.engine.backends.onnx_weights import named_weights
from batchcls.engine.backends.torch_compile import Classify, compiled
from batchcls.engine.backends.torch_features import FeatureFinder
from batchcls.engine.base import EngineInfo, EngineOptions
from batchcls.engine.manifest import Manifest
from batchcls.errors import EngineError, RecipeError
from batchcls.networks.architecture_match import ArchitectureMatch
from batchcls.networks.architectures import PixelClassifier, check_architecture, is_of_pytorch, untrained_network
from batchcls.networks.batch_norm import fuse_batch_norm
from batchcls.records import DevicePixels, Outputs, Pixels

_SETTLED = ("running_mean", "running_var", "num_batches_tracked")
"""Ends of the names of tensors that an ONNX file need not hold, see `fuse_batch_norm`."""
_BATCH_SIZE, _GPU_BATCH_SIZE = 64, 256
"""Images in a batch, on a CPU and on a GPU. An H200 is faster with 256 than with 64 or 128."""
_GPU_LANES = 2
"""Batches under way at one time, so that the GPU has the next one before the last answer is fetched."""
_Answers = npt.NDArray[np.float32]
"""(N, classes + F): logits, and the features behind them."""
_Score = Callable[[Pixels | DevicePixels], _Answers]
_DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


def open_engine(manifest: Manifest, onnx: Path, options: EngineOptions) -> "TorchEngine":
    """A `TorchEngine`, by default in float32 on a CPU, in float16 on a GPU; see `batchcls.engine.backends.open_engine`.

    Args:
        options: The precision is ``f32``, ``bf16`` or ``f16``, or None for the default. The batch size is that of a
            GPU, 256 if it is None; a CPU computes each batch as it comes.
    """
    device = options.device
    if device != "cpu" and not torch.cuda.is_available():
        remedy = "see the driver with: nvidia-smi"
        if torch.version.cuda is None:
            remedy = "for a PyTorch with CUDA run: pip install --force-reinstall torch torchvision"
        raise EngineError(f"this PyTorch ({torch.__version__}) cannot use {device!r}; choose --device cpu, or {remedy}")
    torch.set_num_threads(options.threads)
    precision = options.precision or ("f32" if device == "cpu" else "f16")
    info = manifest.info(backend="torch", device=device, precision=precision)
    finder = FeatureFinder(onnx.parent, manifest) if options.features and manifest.features else None
    batch_size = options.batch_size or (_BATCH_SIZE if device == "cpu" else _GPU_BATCH_SIZE)
    return TorchEngine(info, _network(manifest, onnx), batch_size, finder)


class TorchEngine:
    """The engine's weights in torchvision's network, channels last; on a GPU compiled, and captured as CUDA graphs.

    Compiled arithmetic differs in the last bits, so ``info.backend`` is ``torch.compile`` then, and else ``torch``.

    Args:
        batch_size: Images in a batch; on a GPU shorter batches are padded to it, because a CUDA graph has one shape.
        finder: Finder of the layers that features come from; None if no features are wanted.
    """

    def __init__(
        self, info: EngineInfo, network: nn.Module, batch_size: int, finder: FeatureFinder | None = None
    ) -> None:
        self.info = info
        self.batch_size = batch_size
        self.notes: tuple[str, ...] = ()
        self.lanes = 1 if info.device == "cpu" else _GPU_LANES
        self._free: SimpleQueue[_Score] = SimpleQueue()
        with self._translated():
            classifier = self._placed(network, finder).to(torch.device(info.device))
            self._classifier = classifier.to(memory_format=torch.channels_last)
            classify = self._classifier if info.device == "cpu" else self._compiled()
            for _ in range(self.lanes):
                on_cpu = info.device == "cpu"
                self._free.put(self._score_on_cpu if on_cpu else _Lane(classify, self.info, batch_size).run)

    def infer(self, pixels: Pixels | DevicePixels) -> Outputs:
        self.info.check_pixels(pixels)
        classes = len(self.info.labels)
        if not len(pixels):
            return Outputs(np.empty((0, classes), np.float32), np.empty((0, self._width), np.float32))
        score = self._free.get()
        try:
            with self._translated(), torch.inference_mode():
                answers = score(pixels)
        finally:
            self._free.put(score)
        return Outputs(answers[:, :classes].copy(), answers[:, classes:].copy())

    def close(self) -> None:
        """There is nothing to release: the memory is freed with the object."""

    def _placed(self, network: nn.Module, finder: FeatureFinder | None) -> nn.Module:
        """The classifier, which answers features too if their layers are found; a note says if one is not."""
        places, note = finder.places(network, torch.device(self.info.device)) if finder else ((), "")
        self.notes = (note,) if note else ()
        self._width = finder.width if finder and places else 0
        classifier = PixelClassifier(network, self.info.preprocess, _DTYPES[self.info.precision]).eval()
        return finder.wrapped(classifier, places) if finder else classifier

    def _score_on_cpu(self, pixels: Pixels | DevicePixels) -> _Answers:
        return np.asarray(self._classifier(torch.from_numpy(np.ascontiguousarray(pixels))).numpy())

    def _compiled(self) -> Classify:
        """The network, compiled where that can be done; the engine's notes and its backend's name say which."""
        # Without inference mode, the pixels would be of another kind than a lane's, and compiled for once more.
        with torch.cuda.device(self.info.device), torch.inference_mode():
            shape = (self.batch_size, *self.info.preprocess.size_px, 3)
            pixels = torch.zeros(shape, dtype=torch.uint8, device=self.info.device)
            classify, note = compiled(self._classifier, pixels)
        self.notes += (note,) if note else ()
        if classify is None:
            return self._classifier
        self.info = replace(self.info, backend="torch.compile")
        return classify

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn PyTorch's exceptions into `EngineError`."""
        name, device = self.info.name, self.info.device
        try:
            yield
        except torch.OutOfMemoryError as error:
            free = torch.cuda.mem_get_info(device)[0] >> 20
            smaller = f"--batch-size {self.batch_size // 2}" if self.batch_size > 1 else "--device cpu"
            raise EngineError(
                f"engine {name!r} does not fit {device}, of which {free:,} MiB are free, with batches of "
                f"{self.batch_size}; run: batchcls run {smaller}"
            ) from error
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
            other = "--backend openvino" if device == "cpu" else "--device cpu"
            raise EngineError(
                f"PyTorch cannot run engine {name!r} on {device}: {reason}; run: batchcls run {other}"
            ) from error


class _Lane:
    """A CUDA stream on which batches of one shape are replays of one CUDA graph, with memory of its own.

    Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
    """

    def __init__(self, classifier: Classify, info: EngineInfo, batch_size: int) -> None:
        self._device = torch.device(info.device)
        shape = (batch_size, *info.preprocess.size_px, 3)
        with torch.cuda.device(self._device), torch.inference_mode():
            self._host_pixels = torch.empty(shape, dtype=torch.uint8, pin_memory=True)
            # A thread that waits for these events sleeps, and leaves its core to the decoder.
            self._copied, self._done = (torch.cuda.Event(blocking=True) for _ in range(2))  # type: ignore[no-untyped-call]
            self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
            self._stream.wait_stream(torch.cuda.current_stream(self._device))  # the current stream moves the weights
            with torch.cuda.stream(self._stream):
                self._pixels = torch.zeros(shape, dtype=torch.uint8, device=self._device)
                for _ in range(3):  # kernels are chosen and compiled in the first calls, which must not be captured
                    classifier(self._pixels)
            self._stream.synchronize()
            self._graph = torch.cuda.CUDAGraph()
            # In this mode, allocations of other threads do not disturb the capture.
            with torch.cuda.graph(self._graph, stream=self._stream, capture_error_mode="thread_local"):
                self._answers: Tensor = classifier(self._pixels)

    def run(self, pixels: Pixels | DevicePixels) -> _Answers:
        """Answers to any number of images; the last batch is filled up with rows whose answers are dropped."""
        batch_size, width = self._answers.shape
        answers = torch.empty((len(pixels), width), pin_memory=True)
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            for start in range(0, len(pixels), batch_size):
                rows = slice(start, min(start + batch_size, len(pixels)))
                self._copy(pixels[rows])
                self._graph.replay()
                answers[rows].copy_(self._answers[: rows.stop - start], non_blocking=True)
            self._done.record()
        self._done.synchronize()
        return np.asarray(answers.numpy())

    def _copy(self, pixels: Pixels | DevicePixels) -> None:
        """Copy a batch to where the CUDA graph reads it, through pinned memory if the batch is on the host."""
        if isinstance(pixels, DevicePixels):
            source = torch.as_tensor(pixels, device=self._device)  # by CUDA's array interface, without a copy
        else:
            self._copied.synchronize()  # the last batch has left the pinned memory
            source = self._host_pixels[: len(pixels)]
            np.copyto(source.numpy(), pixels)
        self._pixels[: len(pixels)].copy_(source, non_blocking=True)
        self._copied.record()


def _network(manifest: Manifest, path: Path) -> nn.Module:
    """The network of torchvision or timm with the weights of the ONNX file at ``path``."""
    others = (
        "on the CPU choose --backend openvino, and on a GPU --backend onnxruntime, or run: "
        "pip install 'tensorrt>=10.12'"
    )
    if manifest.precision == "int8" or not is_of_pytorch(manifest.architecture):
        raise EngineError(
            f"engine {manifest.name!r} was built from {manifest.checkpoint!r} in {manifest.precision}, which PyTorch "
            f"cannot run; {others}"
        )
    try:
        check_architecture(manifest.architecture)
    except RecipeError as error:
        raise EngineError(f"engine {manifest.name!r} cannot run with PyTorch: {error}; or {others}") from error
    weights = {name: torch.from_numpy(value) for name, value in named_weights(path).items()}
    match = ArchitectureMatch.of(manifest.architecture, weights)
    network = fuse_batch_norm(
        untrained_network(
            manifest.architecture,
            len(manifest.labels),
            match.head,
            in_channels=match.in_channels,
            transform_input=manifest.preprocess.transform_input,
        )
    )
    # The exporter leaves out biases that are all zero; statistics of batch normalizations are 0 and 1.
    settled = {name: value for name, value in network.state_dict().items() if name.endswith(_SETTLED)}
    biases = {name: torch.zeros_like(value) for name, value in network.state_dict().items() if name.endswith("bias")}
    try:
        network.load_state_dict(settled | biases | weights)
    except RuntimeError as error:
        raise EngineError(
            f"engine {manifest.name!r} cannot run with PyTorch: its ONNX file does not hold the weights of "
            f"{manifest.architecture} by their names; {others}"
        ) from error
    return network
