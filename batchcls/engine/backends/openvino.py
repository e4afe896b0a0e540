"""Run an engine on the CPU with OpenVINO."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import openvino as ov

from batchcls.engine.manifest import Manifest
from batchcls.errors import EngineError
from batchcls.records import DevicePixels, EngineInfo, Logits, Pixels

_CHUNK = 8
"""Images an infer request: small enough to stay in the caches, and fixed, so that no image's answer depends on how
many others came with it."""


def open(
    manifest: Manifest, onnx: Path, *, device: str, threads: int, precision: str | None = None
) -> "OpenVinoEngine":
    """The engine of `open_engine`; by itself in bfloat16 where the CPU computes it in hardware, and
    the engine's manifest does not ask for float32.

    What an int8 engine has left in float is computed in float32: so it answers alike on every CPU, within 0.0015 of
    ONNX's own definition on 2,604 smears (0.05 in bfloat16), and takes no longer.

    Args:
        precision: ``bf16`` or ``f32`` instead.
    """
    if device != "cpu":
        raise EngineError(f"backend 'openvino' runs on the CPU, not on {device!r}; run: batchcls run --device cpu")
    core = ov.Core()
    has_bfloat16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision == "bf16" and not has_bfloat16:
        raise EngineError("this CPU has no bfloat16; leave --precision out, or choose fp32")
    if precision is None:
        exact = manifest.exact or manifest.precision == "int8"
        precision = "bf16" if has_bfloat16 and not exact else "f32"
    shown = "int8" if manifest.precision == "int8" else precision
    return OpenVinoEngine(
        manifest.info(backend="openvino", device="cpu", precision=shown), core, onnx, threads, precision
    )


class OpenVinoEngine:
    """One stream a thread; a batch is cut into chunks that the streams share."""

    batch_size = 64
    lanes = 2

    def __init__(self, info: EngineInfo, core: ov.Core, onnx: Path, threads: int, hint: str) -> None:
        self.info = info
        try:
            model = core.read_model(onnx)
            _check_model(model, info)
            model.reshape([_CHUNK, *info.preprocess.size_px, 3])
            options = {
                "INFERENCE_PRECISION_HINT": hint,
                "INFERENCE_NUM_THREADS": str(threads),
                "NUM_STREAMS": str(threads),
                "ENABLE_CPU_PINNING": "NO",  # decoders need the same cores; threads of a bound one are bound as well
            }
            compiled = core.compile_model(model, "CPU", options)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise EngineError(f"OpenVINO cannot run {str(onnx)!r}: {reason}; build the engine again") from error
        self._free: SimpleQueue[ov.InferRequest] = SimpleQueue()
        for _ in range(threads):
            self._free.put(compiled.create_infer_request())
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="openvino")
        # Once before two threads can at a time: OpenVINO's first use of an array waits for the GIL in a lock that the
        # other thread would wait for with the GIL (seen in 2026.4).
        self._pool.submit(self._infer_chunk, np.zeros((1, *info.preprocess.size_px, 3), np.uint8)).result()

    def infer(self, pixels: Pixels | DevicePixels) -> Logits:
        pixels = self.info.host_pixels(pixels)
        chunks = [pixels[start : start + _CHUNK] for start in range(0, len(pixels), _CHUNK)]
        none = np.empty((0, len(self.info.labels)), np.float32)
        return np.concatenate([none, *self._pool.map(self._infer_chunk, chunks)])

    def close(self) -> None:
        self._pool.shutdown()

    def _infer_chunk(self, chunk: Pixels) -> Logits:
        padded = np.ascontiguousarray(chunk)
        if len(chunk) < _CHUNK:
            padded = np.concatenate([chunk, np.zeros((_CHUNK - len(chunk), *chunk.shape[1:]), np.uint8)])
        request = self._free.get()
        try:
            request.infer({0: padded}, share_inputs=True, share_outputs=True)
            return np.array(request.get_output_tensor(0).data[: len(chunk)])
        except RuntimeError as error:
            raise EngineError(f"OpenVINO failed to infer: {' '.join(str(error).split())}") from error
        finally:
            self._free.put(request)


def _check_model(model: ov.Model, info: EngineInfo) -> None:
    """Refuse a network that does not eat and answer what the manifest says."""
    takes, answers = model.input(0).partial_shape, model.output(0).partial_shape
    if not takes.compatible(ov.PartialShape([_CHUNK, *info.preprocess.size_px, 3])):
        raise EngineError(f"engine {info.name!r} takes pixels {takes}, but its manifest says {info.preprocess.size_px}")
    if not answers.compatible(ov.PartialShape([-1, len(info.labels)])):
        raise EngineError(f"engine {info.name!r} answers {answers}, but its manifest names {len(info.labels)} labels")
