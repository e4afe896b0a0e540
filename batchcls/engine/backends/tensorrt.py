"""Run an engine's plan on a GPU with TensorRT, or TensorRT for RTX."""

from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from queue import SimpleQueue
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from batchcls import machine
from batchcls.engine.backends import cuda
from batchcls.engine.backends.tensorrt_api import api, errors_of, here, installed, log, module_for
from batchcls.engine.manifest import Manifest
from batchcls.engine.sidecar import Sidecar, fitting_plan
from batchcls.errors import DeviceMemoryError, EngineError
from batchcls.records import DevicePixels, EngineInfo, Logits, Pixels

if TYPE_CHECKING:
    import tensorrt

_LANES = 2
"""Batches on their way at one time: the GPU has the next one before the last one's answer is fetched."""
_TRIALS = 10
_GRAPH_MAY_TAKE = 1.05
"""As long as launching each kernel: where both keep the GPU busy, the graph still spares the CPU."""


def open(
    manifest: Manifest, onnx: Path, *, device: str, threads: int, precision: str | None = None
) -> "TensorRtEngine":
    """The engine of `batchcls.engine.backends.open_engine`, from the plan in its folder that fits this GPU."""
    if device == "cpu":
        raise EngineError("backend 'tensorrt' runs on a GPU, not on the CPU; run: batchcls run --device cuda")
    gpu = machine.gpu(device)
    module_for(gpu.sm)
    targets = {module: here(module, gpu) for module in installed()}
    sidecar, plan = fitting_plan(onnx.parent, manifest.onnx_sha256, targets)
    info = manifest.info(backend=sidecar.target.module, device=device, precision=sidecar.precision)
    return TensorRtEngine(info, gpu.number, sidecar, plan)


class TensorRtEngine:
    """A plan in lanes, each with a stream and with memory of its own; lanes are taken in turns.

    Args:
        number: Of the GPU.
        plan: Known to be what ``sidecar`` was written for.

    Raises:
        EngineError: If TensorRT refuses the plan, with what it says, or the GPU has not enough memory.
    """

    def __init__(self, info: EngineInfo, number: int, sidecar: Sidecar, plan: bytes) -> None:
        self.info = info
        self.lanes = _LANES
        self._number = number
        self.batch_size = sidecar.batch_size
        self._closing = ExitStack()
        self._free: SimpleQueue[_Lane] = SimpleQueue()
        module = sidecar.target.module
        trt = api(module)
        cuda.use(number)
        free_bytes = cuda.free_bytes()
        with errors_of(module) as errors:
            runtime = trt.Runtime(log(module))
            engine = runtime.deserialize_cuda_engine(plan)
            if engine is None and any("memory" in error.lower() for error in errors):
                raise self._too_large(free_bytes)
            if engine is None:
                raise EngineError(
                    f"{module} {sidecar.target.version} refuses the plan of engine {info.name!r}: "
                    f"{'; '.join(errors) or 'it does not say why'}; run: batchcls build ENGINE --device cuda"
                )
        self._check(engine)
        try:
            for _ in range(_LANES):
                self._free.put(_Lane(engine, info, sidecar.batch_size, self._closing))
        except DeviceMemoryError as error:
            self.close()
            raise self._too_large(free_bytes) from error

    def infer(self, pixels: Pixels | DevicePixels) -> Logits:
        self.info.check_pixels(pixels)
        logits = np.empty((len(pixels), len(self.info.labels)), np.float32)
        cuda.use(self._number)
        for start in range(0, len(pixels), self.batch_size):
            some = slice(start, start + self.batch_size)
            lane = self._free.get()
            try:
                logits[some] = lane.run(pixels[some])
            finally:
                self._free.put(lane)
        return logits

    def close(self) -> None:
        cuda.use(self._number)
        self._closing.close()

    def _too_large(self, free_bytes: int) -> EngineError:
        return EngineError(
            f"engine {self.info.name!r} does not fit the {free_bytes >> 20:,} MiB that are free on {self.info.device} "
            f"with batches of {self.batch_size}; run: batchcls build ENGINE --device cuda "
            f"--batch-size {max(1, self.batch_size // 2)}"
        )

    def _check(self, engine: "tensorrt.ICudaEngine") -> None:
        """Refuse a plan whose shapes are not those of the manifest and the sidecar."""
        wanted = {
            "pixels": (self.batch_size, *self.info.preprocess.size_px, 3),
            "logits": (self.batch_size, len(self.info.labels)),
        }
        names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
        found = {name: tuple(engine.get_tensor_shape(name)) for name in names}
        if found != wanted:
            raise EngineError(
                f"the plan of engine {self.info.name!r} has {found}, its manifest and sidecar say {wanted}; "
                "run: batchcls build ENGINE --device cuda"
            )


class _Lane:
    """One execution context; what it allocates is released by ``closing``."""

    def __init__(self, engine: "tensorrt.ICudaEngine", info: EngineInfo, batch_size: int, closing: ExitStack) -> None:
        height, width = info.preprocess.size_px
        self._answer = (batch_size, len(info.labels))
        self._context: tensorrt.IExecutionContext | None = engine.create_execution_context()
        if self._context is None:
            raise DeviceMemoryError("TensorRT could not take the memory that it works in")
        self._stream = cuda.Stream()
        closing.callback(self._stream.close)
        self._pixels = cuda.DeviceMemory(batch_size * height * width * 3)
        closing.callback(self._pixels.close)
        self._logits = cuda.DeviceMemory(batch_size * len(info.labels) * 4)
        closing.callback(self._logits.close)
        self._host_pixels = cuda.PinnedMemory(batch_size * height * width * 3)
        closing.callback(self._host_pixels.close)
        self._host_logits = cuda.PinnedMemory(batch_size * len(info.labels) * 4)
        closing.callback(self._host_logits.close)
        self._context.set_tensor_address("pixels", self._pixels.address)
        self._context.set_tensor_address("logits", self._logits.address)
        self._execute()  # before anything is captured, as TensorRT asks for
        self._stream.wait()
        self._launch: Callable[[], None] = self._execute
        with suppress(EngineError):  # not every plan can be captured
            graph = cuda.Graph(self._stream, self._execute)
            closing.callback(graph.close)
            if self._seconds(graph.launch) <= self._seconds(self._execute) * _GRAPH_MAY_TAKE:
                self._launch = graph.launch
        closing.callback(self._forget)

    def run(self, pixels: Pixels | DevicePixels) -> Logits:
        """Logits of at most a batch; what the GPU computes of the rest of it is dropped."""
        self._stream.copy_pixels(pixels, self._pixels, self._host_pixels)
        self._launch()
        self._stream.copy(self._host_logits.address, self._logits.address, len(self._host_logits.content))
        self._stream.wait()
        return self._host_logits.content.view(np.float32).reshape(self._answer)[: len(pixels)].copy()

    def _forget(self) -> None:
        """Let go of TensorRT's objects, before the stream and the memory that they know are gone."""
        self._context = None
        self._launch = self._execute

    def _execute(self) -> None:
        if self._context is None or not self._context.execute_async_v3(int(self._stream.handle)):
            raise EngineError("TensorRT could not start its work; run with batchcls info to see the GPU")

    def _seconds(self, launch: Callable[[], None]) -> float:
        launch()
        self._stream.wait()
        since = perf_counter()
        for _ in range(_TRIALS):
            launch()
        self._stream.wait()
        return perf_counter() - since
