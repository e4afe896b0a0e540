"""Run an engine's plan on a GPU with TensorRT, or TensorRT for RTX."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from queue import SimpleQueue
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from batchcls import machine
from batchcls.engine.backends import cuda
from batchcls.engine.backends.runtime_cache import KernelFile, RuntimeCache
from batchcls.engine.backends.tensorrt_api import (
    installed_modules,
    local_target,
    logged_errors,
    module_for,
    module_logger,
    tensorrt_module,
)
from batchcls.engine.base import EngineInfo, EngineOptions
from batchcls.engine.manifest import Manifest
from batchcls.engine.plan_sidecar import Sidecar, plan_notes, read_fitting_plan
from batchcls.errors import DeviceMemoryError, EngineError
from batchcls.records import DevicePixels, Outputs, Pixels

if TYPE_CHECKING:
    import tensorrt

_LANES = 2
"""Batches under way at one time, so that the GPU has the next one before the last answer is fetched."""
_TRIALS = 10
_LARGEST_GRAPH_TIME_RATIO = 1.05
"""Largest ratio of a CUDA graph's time to that of single launches at which the graph is used, to spare the CPU."""


def open_engine(manifest: Manifest, onnx: Path, options: EngineOptions) -> "TensorRtEngine":
    """A `TensorRtEngine` of the folder's plan for this GPU, with the parameters of `backends.open_engine`."""
    device = options.device
    if device == "cpu":
        raise EngineError("backend 'tensorrt' runs on a GPU, not on the CPU; run: batchcls run --device cuda")
    gpu = machine.gpu(device)
    module_for(gpu.sm)
    targets = {module: local_target(module, gpu) for module in installed_modules()}
    sidecar, plan = read_fitting_plan(onnx.parent, manifest.onnx_sha256, targets, device)
    info = manifest.info(backend=sidecar.target.module, device=device, precision=sidecar.precision)
    kernels = KernelFile(onnx.parent, sidecar.plan_sha256, targets[sidecar.target.module])
    widths = {"logits": len(info.labels)} | ({"features": manifest.features.width} if manifest.features else {})
    wanted = [name for name in widths if options.features or name == "logits"]
    return TensorRtEngine(info, gpu.number, sidecar, plan, kernels, _Answers(widths, wanted))


class _Answers(NamedTuple):
    """A plan's outputs: values of an image by each output's name, and names of the outputs that are fetched."""

    widths: Mapping[str, int]
    wanted: Sequence[str]


class TensorRtEngine:
    """A plan on a GPU, in several lanes, each with its own stream and memory; batches take lanes in turn.

    Args:
        number: Number of the GPU.
        plan: Content of the plan, already checked against ``sidecar``.
        answers: Outputs of the plan.
        kernels: File for the kernels that TensorRT for RTX compiles; TensorRT itself has them in the plan.

    Raises:
        EngineError: If TensorRT refuses the plan, or the GPU has not enough memory.
    """

    def __init__(
        self, info: EngineInfo, number: int, sidecar: Sidecar, plan: bytes, kernels: KernelFile, answers: _Answers
    ) -> None:
        self.info = info
        self._answers = answers
        self.lanes = _LANES
        self._number = number
        self.batch_size = sidecar.batch_size
        self.notes = plan_notes(sidecar, kernels.folder, kernels.here, info.device)
        self._closing = ExitStack()
        self._free: SimpleQueue[_Lane] = SimpleQueue()
        module = sidecar.target.module
        trt = tensorrt_module(module)
        cuda.use_gpu(number)
        free_bytes = cuda.free_bytes()
        with logged_errors(module) as errors:
            runtime = trt.Runtime(module_logger(module))
            engine = runtime.deserialize_cuda_engine(plan)
            if engine is None and any("memory" in error.lower() for error in errors):
                raise self._too_large(free_bytes)
            if engine is None:
                raise EngineError(
                    f"{module} {sidecar.target.version} refuses the plan of engine {info.name!r}: "
                    f"{'; '.join(errors) or 'it does not say why'}; run: batchcls build ENGINE --device {info.device}"
                )
            self._check(engine)
            try:
                self._open_lanes(engine, kernels, errors)
            except DeviceMemoryError as error:
                self.close()
                raise self._too_large(free_bytes) from error
            except EngineError:
                self.close()
                raise

    def infer(self, pixels: Pixels | DevicePixels) -> Outputs:
        self.info.check_pixels(pixels)
        outputs = [np.empty((len(pixels), self._answers.widths[name]), np.float32) for name in self._answers.wanted]
        cuda.use_gpu(self._number)
        for start in range(0, len(pixels), self.batch_size):
            rows = slice(start, start + self.batch_size)
            lane = self._free.get()
            try:
                for output, values in zip(outputs, lane.run(pixels[rows]), strict=True):
                    output[rows] = values
            finally:
                self._free.put(lane)
        return Outputs(*outputs) if len(outputs) > 1 else Outputs.without_features(outputs[0])

    def close(self) -> None:
        cuda.use_gpu(self._number)
        self._closing.close()

    def _open_lanes(self, engine: "tensorrt.ICudaEngine", kernels: KernelFile, errors: Sequence[str]) -> None:
        trt = tensorrt_module(self.info.backend)
        # A plan that may be captured as a graph allocates nothing by itself, so its context has to be given memory.
        strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        cache = RuntimeCache(engine, kernels) if self.info.backend == "tensorrt_rtx" else None
        if cache:
            self._closing.callback(cache.close)
        for _ in range(_LANES):
            context = cache.context() if cache else engine.create_execution_context(strategy)
            if context is None:
                reason, device = "; ".join(errors) or "it does not say why", self.info.device
                raise EngineError(
                    f"{self.info.backend} cannot prepare engine {self.info.name!r} for work on {device}: {reason}; "
                    f"run: batchcls build ENGINE --device {device}"
                )
            shape = (self.batch_size, *self.info.preprocess.size_px, 3)
            self._free.put(_Lane(engine, context, shape, self._answers, self._closing))
        if cache:
            cache.save()

    def _too_large(self, free_bytes: int) -> EngineError:
        smaller = f"run: batchcls build ENGINE --device {self.info.device} --batch-size {self.batch_size // 2}"
        return EngineError(
            f"engine {self.info.name!r} does not fit the {free_bytes >> 20:,} MiB that are free on {self.info.device} "
            f"with batches of {self.batch_size}; {smaller if self.batch_size > 1 else 'run: batchcls run --device cpu'}"
        )

    def _check(self, engine: "tensorrt.ICudaEngine") -> None:
        """Refuse a plan whose tensors are not those of the manifest and the sidecar."""
        wanted = {
            "pixels": (self.batch_size, *self.info.preprocess.size_px, 3),
            **{name: (self.batch_size, width) for name, width in self._answers.widths.items()},
        }
        names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
        shapes = {name: tuple(engine.get_tensor_shape(name)) for name in names}
        if shapes != wanted:
            raise EngineError(
                f"the plan of engine {self.info.name!r} has {shapes}, its manifest and sidecar say {wanted}; "
                f"run: batchcls build ENGINE --device {self.info.device}"
            )


class _Lane:
    """One execution context, which works in a stream and in memory of its own, all of which ``closing`` releases."""

    def __init__(
        self,
        engine: "tensorrt.ICudaEngine",
        context: "tensorrt.IExecutionContext",
        shape: tuple[int, ...],
        answers: _Answers,
        closing: ExitStack,
    ) -> None:
        self._context: tensorrt.IExecutionContext | None = context
        self._stream = cuda.Stream()
        closing.callback(self._stream.close)
        scratch_bytes = engine.device_memory_size_v2
        self._scratch = cuda.DeviceMemory(max(1, scratch_bytes))
        closing.callback(self._scratch.close)
        self._context.set_device_memory(self._scratch.address, scratch_bytes)
        self._pixels = cuda.DeviceMemory(math.prod(shape))
        closing.callback(self._pixels.close)
        self._host_pixels = cuda.PinnedMemory(math.prod(shape))
        closing.callback(self._host_pixels.close)
        self._context.set_tensor_address("pixels", self._pixels.address)
        self._outputs: list[tuple[cuda.DeviceMemory, cuda.PinnedMemory]] = []
        """Memory of each wanted output on the GPU, and on the host."""
        for name, width in answers.widths.items():
            memory, host = cuda.DeviceMemory(shape[0] * width * 4), cuda.PinnedMemory(shape[0] * width * 4)
            closing.callback(memory.close)
            closing.callback(host.close)
            self._context.set_tensor_address(name, memory.address)
            self._outputs += [(memory, host)] if name in answers.wanted else []
        self._batch_size = shape[0]
        self._execute()  # TensorRT asks for one execution before a capture
        self._stream.wait()
        self._launch: Callable[[], None] = self._execute
        self._capture(closing)
        closing.callback(self._forget)

    def run(self, pixels: Pixels | DevicePixels) -> "list[npt.NDArray[np.float32]]":
        """The wanted outputs, (N, ...) float32 each, of N images, at most a batch; the rest is computed and dropped."""
        self._stream.copy_pixels(pixels, self._pixels, self._host_pixels)
        self._launch()
        for memory, host in self._outputs:
            self._stream.copy(host.address, memory.address, len(host.content))
        self._stream.wait()
        values = [host.content.view(np.float32).reshape(self._batch_size, -1) for _, host in self._outputs]
        return [value[: len(pixels)].copy() for value in values]

    def _capture(self, closing: ExitStack) -> None:
        """Launch by a CUDA graph from now on, if the plan can be captured and the graph is fast enough."""
        with suppress(EngineError):  # not every plan can be captured
            graph = cuda.Graph(self._stream, self._execute)
            closing.callback(graph.close)
            if self._seconds(graph.launch) <= self._seconds(self._execute) * _LARGEST_GRAPH_TIME_RATIO:
                self._launch = graph.launch

    def _forget(self) -> None:
        """Drop TensorRT's objects, before the stream and the memory that they use are released."""
        self._context = None
        self._launch = self._execute

    def _execute(self) -> None:
        if self._context is None or not self._context.execute_async_v3(int(self._stream.handle)):
            raise EngineError(
                "TensorRT could not start its work; see the GPU's state with: nvidia-smi, "
                "or run: batchcls run --device cpu"
            )

    def _seconds(self, launch: Callable[[], None]) -> float:
        launch()
        self._stream.wait()
        since = perf_counter()
        for _ in range(_TRIALS):
            launch()
        self._stream.wait()
        return perf_counter() - since
