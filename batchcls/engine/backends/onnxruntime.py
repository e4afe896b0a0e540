"""Run an engine's ONNX file with ONNX Runtime, which also takes networks on a GPU that PyTorch does not know."""

import io
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as states

from batchcls.engine.base import EngineInfo, EngineOptions
from batchcls.engine.manifest import Manifest
from batchcls.errors import EngineError
from batchcls.records import DevicePixels, Outputs, Pixels

_CPU_CHUNK, _GPU_CHUNK = 8, 256
"""Images that are computed at a time, always the same number: other numbers are computed by other kernels."""
_OUTPUTS = ("logits", "features")
_GPU_LANES = 2
"""Batches under way at one time, so that the GPU has the next one before the last answer is fetched."""
_Fill = Callable[[Pixels | DevicePixels], None]
_FAILURES: tuple[type[Exception], ...] = (
    *(kind for kind in vars(states).values() if isinstance(kind, type) and issubclass(kind, Exception)),
    RuntimeError,
    ValueError,
)
"""Exceptions that ONNX Runtime raises, which share no base class of their own."""
_INSTALL = "pip uninstall -y onnxruntime; pip install 'onnxruntime-gpu[cuda,cudnn]>=1.31'"


def open_engine(manifest: Manifest, onnx: Path, options: EngineOptions) -> "OnnxRuntimeEngine":
    """An `OnnxRuntimeEngine`, in the precision of the ONNX file; see `batchcls.engine.backends.open_engine`.

    Args:
        options: The batch size is that of a GPU, 256 if it is None; a CPU computes 8 images at a time.
    """
    if options.precision is not None:
        raise EngineError(
            f"backend 'onnxruntime' computes in {manifest.precision}, as the engine's file says, not in "
            f"{options.precision}; leave --precision out, or run: batchcls run --backend openvino"
        )
    info = manifest.info(backend="onnxruntime", device=options.device, precision=manifest.precision)
    on_cpu = options.device == "cpu"
    widths = [len(info.labels), *([manifest.features.width] if options.features and manifest.features else [])]
    return OnnxRuntimeEngine(
        info, onnx, options.threads, _CPU_CHUNK if on_cpu else options.batch_size or _GPU_CHUNK, widths
    )


class OnnxRuntimeEngine:
    """A session of ONNX Runtime, which computes chunks of one size; shorter ones are padded.

    Args:
        chunk: Images that are computed at a time.
        widths: Numbers of an image's logits and, if they are wanted, of its features.
    """

    notes = ()

    def __init__(self, info: EngineInfo, onnx: Path, threads: int, chunk: int, widths: Sequence[int]) -> None:
        self.info = info
        self._widths = widths
        self._chunk = chunk
        self.batch_size = max(chunk, 64)
        self.lanes = 1 if info.device == "cpu" else _GPU_LANES
        self._closing = ExitStack()
        self._free: SimpleQueue[_Lane] = SimpleQueue()
        try:
            with self._translated():
                session = _session(onnx, info, threads, chunk)
                for _ in range(self.lanes):
                    lane = _Lane(session, info, chunk, _OUTPUTS[: len(widths)], self._closing)
                    lane.run(np.zeros((1, *info.preprocess.size_px, 3), np.uint8))  # this run chooses the kernels
                    self._free.put(lane)
        except EngineError:
            self.close()
            raise

    def infer(self, pixels: Pixels | DevicePixels) -> Outputs:
        self.info.check_pixels(pixels)
        outputs = [np.empty((len(pixels), width), np.float32) for width in self._widths]
        for start in range(0, len(pixels), self._chunk):
            rows = slice(start, start + self._chunk)
            lane = self._free.get()
            try:
                with self._translated():
                    for output, values in zip(outputs, lane.run(pixels[rows]), strict=True):
                        output[rows] = values
            finally:
                self._free.put(lane)
        return Outputs(*outputs) if len(outputs) > 1 else Outputs.without_features(outputs[0])

    def close(self) -> None:
        self._closing.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn ONNX Runtime's exceptions into `EngineError`."""
        try:
            yield
        except _FAILURES as error:
            reason, device = " ".join(str(error).split())[-400:], self.info.device
            other = "--backend openvino" if device == "cpu" else "--device cpu, or with a smaller --batch-size"
            raise EngineError(
                f"ONNX Runtime cannot run engine {self.info.name!r} on {device}: {reason}; run: batchcls run {other}"
            ) from error


def _session(onnx: Path, info: EngineInfo, threads: int, chunk: int) -> ort.InferenceSession:
    """A session for batches of ``chunk`` images on the device of ``info``, and on no other.

    Source: https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.add_free_dimension_override_by_name("batch", chunk)
    if info.device == "cpu":
        return ort.InferenceSession(onnx, options, ["CPUExecutionProvider"])
    ort.set_default_logger_severity(4)  # what it would log about a library that does not load is the error below
    with redirect_stdout(io.StringIO()) as output:  # here it prints the reason
        ort.preload_dlls(msvc=False)
    provider = ("CUDAExecutionProvider", {"device_id": _number(info)})
    if provider[0] in ort.get_available_providers():
        session = ort.InferenceSession(onnx, options, [provider], enable_fallback=0)
        if provider[0] in session.get_providers():
            return session
    reason = " ".join(output.getvalue().split())[:200] or "it was made for the CPU, or finds no CUDA, cuDNN or GPU"
    raise EngineError(f"this ONNX Runtime ({ort.__version__}) cannot use {info.device}: {reason}; run: {_INSTALL}")


class _Lane:
    """A session with memory for the pixels of a chunk, on the session's device, which ``closing`` releases."""

    def __init__(
        self, session: ort.InferenceSession, info: EngineInfo, chunk: int, outputs: Sequence[str], closing: ExitStack
    ) -> None:
        shape = (chunk, *info.preprocess.size_px, 3)
        kind, number = ("cpu", 0) if info.device == "cpu" else ("cuda", _number(info))
        address, self._fill = _host_memory(info, shape) if kind == "cpu" else _gpu_memory(number, shape, closing)
        self._session, self._binding = session, session.io_binding()
        self._binding.bind_input("pixels", kind, number, np.uint8, shape, address)
        for name in outputs:
            self._binding.bind_output(name, "cpu")

    def run(self, pixels: Pixels | DevicePixels) -> list[Any]:
        """Each output, (N, ...) float32, of N images, at most a chunk; the rest is computed and dropped."""
        self._fill(pixels)
        self._session.run_with_iobinding(self._binding)
        return [values[: len(pixels)] for values in self._binding.copy_outputs_to_cpu()]


def _host_memory(info: EngineInfo, shape: tuple[int, ...]) -> tuple[int, _Fill]:
    """Address of new memory for pixels, and the function that copies pixels there."""
    memory = np.zeros(shape, np.uint8)

    def fill(pixels: Pixels | DevicePixels) -> None:
        memory[: len(pixels)] = info.host_pixels(pixels)

    return memory.ctypes.data, fill


def _gpu_memory(number: int, shape: tuple[int, ...], closing: ExitStack) -> tuple[int, _Fill]:
    """Address of new memory for pixels on GPU ``number``, and the function that copies pixels there."""
    try:
        from batchcls.engine.backends import cuda  # cuda-python is installed where there are GPUs only
    except ImportError as error:
        raise EngineError(f"{error.name} is not installed; run: pip install 'cuda-bindings>=13'") from error

    cuda.use_gpu(number)
    memory, pinned = cuda.DeviceMemory(math.prod(shape)), cuda.PinnedMemory(math.prod(shape))
    stream = cuda.Stream()
    for resource in (memory, pinned, stream):
        closing.callback(resource.close)

    def fill(pixels: Pixels | DevicePixels) -> None:
        cuda.use_gpu(number)
        stream.copy_pixels(pixels, memory, pinned)
        stream.wait()

    return memory.address, fill


def _number(info: EngineInfo) -> int:
    return int(info.device.removeprefix("cuda:"))
