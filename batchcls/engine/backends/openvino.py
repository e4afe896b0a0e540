"""Run an engine on the CPU with OpenVINO."""

import shlex
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import openvino as ov

from batchcls.engine.base import EngineInfo
from batchcls.engine.manifest import Manifest
from batchcls.errors import EngineError
from batchcls.records import DevicePixels, Logits, Pixels

_CHUNK = 8
"""Images in an infer request: few enough to stay in the caches, and always the same number, so that an image's answer
does not depend on how many others came with it."""


def open_engine(
    manifest: Manifest,
    onnx: Path,
    *,
    device: str,
    threads: int,
    precision: str | None = None,
    batch_size: int | None = None,
) -> "OpenVinoEngine":
    """An `OpenVinoEngine` on the CPU, with the parameters of `batchcls.engine.backends.open_engine`.

    The default arithmetic is bfloat16 where the CPU computes it in hardware and the manifest does not ask for float32.
    The floating-point layers of an int8 engine are computed in float32 by default: so the engine answers alike on
    every CPU, within 0.0015 of ONNX's own definition on 2,604 smears (0.05 in bfloat16), and takes no longer.

    Args:
        precision: ``bf16`` or ``f32``; None: the default.
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
    info_precision = "int8" if manifest.precision == "int8" else precision
    return OpenVinoEngine(
        manifest.info(backend="openvino", device="cpu", precision=info_precision), core, onnx, threads, precision
    )


class OpenVinoEngine:
    """A network compiled by OpenVINO with a stream for each thread; the streams share the chunks of a batch."""

    batch_size = 64
    notes = ()
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
                "ENABLE_CPU_PINNING": "NO",  # decoders need the cores; a pinned thread starts pinned threads
            }
            compiled = core.compile_model(model, "CPU", options)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise EngineError(
                f"OpenVINO cannot run {str(onnx)!r}: {reason}; build the engine again: "
                f"batchcls build CHECKPOINT --out {shlex.quote(str(onnx.parent))} --overwrite"
            ) from error
        self._free: SimpleQueue[ov.InferRequest] = SimpleQueue()
        for _ in range(threads):
            self._free.put(compiled.create_infer_request())
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="openvino")
        # One inference before two threads can infer at a time: OpenVINO's first use of an array waits for the GIL while
        # it holds a lock, for which another thread would wait while it holds the GIL (seen in 2026.4).
        self._pool.submit(self._infer_chunk, np.zeros((1, *info.preprocess.size_px, 3), np.uint8)).result()

    def infer(self, pixels: Pixels | DevicePixels) -> Logits:
        pixels = self.info.host_pixels(pixels)
        chunks = [pixels[start : start + _CHUNK] for start in range(0, len(pixels), _CHUNK)]
        no_rows = np.empty((0, len(self.info.labels)), np.float32)
        return np.concatenate([no_rows, *self._pool.map(self._infer_chunk, chunks)])

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
    """Refuse a network whose input or output is not what the manifest says."""
    input_shape, output_shape = model.input(0).partial_shape, model.output(0).partial_shape
    if not input_shape.compatible(ov.PartialShape([_CHUNK, *info.preprocess.size_px, 3])):
        raise EngineError(
            f"engine {info.name!r} takes pixels {input_shape}, but its manifest says {info.preprocess.size_px}; "
            "run: batchcls build CHECKPOINT --out ENGINE --overwrite"
        )
    if not output_shape.compatible(ov.PartialShape([-1, len(info.labels)])):
        raise EngineError(
            f"engine {info.name!r} answers {output_shape}, but its manifest names {len(info.labels)} labels; "
            "run: batchcls build CHECKPOINT --out ENGINE --overwrite"
        )
