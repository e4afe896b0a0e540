"""Run an engine on the CPU with OpenVINO."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import openvino as ov

from batchcls.engine.backends.openvino_core import CORE
from batchcls.engine.base import EngineInfo, EngineOptions
from batchcls.engine.manifest import Manifest
from batchcls.errors import EngineError
from batchcls.records import DevicePixels, Outputs, Pixels

_CHUNK = 8
"""Images in an infer request: few enough to stay in the caches, and always the same number, so that an image's answer
does not depend on how many others came with it."""


def open_engine(manifest: Manifest, onnx: Path, options: EngineOptions) -> "OpenVinoEngine":
    """An `OpenVinoEngine` on the CPU, with the parameters of `batchcls.engine.backends.open_engine`.

    The default arithmetic is bfloat16 where the CPU computes it in hardware and the manifest does not ask for float32.
    The floating-point layers of an int8 engine are computed in float32 by default: so the engine answers alike on
    every CPU, within 0.0015 of ONNX's own definition on 2,604 smears (0.05 in bfloat16), and takes no longer.

    Args:
        options: The precision is ``bf16``, ``f32``, or None for the default.
    """
    device, precision = options.device, options.precision
    if device != "cpu":
        raise EngineError(f"backend 'openvino' runs on the CPU, not on {device!r}; run: batchcls run --device cpu")
    has_bfloat16 = "BF16" in CORE.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision == "bf16" and not has_bfloat16:
        raise EngineError("this CPU has no bfloat16; leave --precision out, or choose fp32")
    if precision is None:
        exact = manifest.exact or manifest.precision == "int8"
        precision = "bf16" if has_bfloat16 and not exact else "f32"
    info_precision = "int8" if manifest.precision == "int8" else precision
    return OpenVinoEngine(
        manifest.info(backend="openvino", device="cpu", precision=info_precision),
        _network(manifest, onnx, features=options.features),
        options.threads,
        precision,
    )


class OpenVinoEngine:
    """A network compiled by OpenVINO with a stream for each thread; the streams share the chunks of a batch.

    Args:
        model: The network, whose outputs are logits and, if they are wanted, features.
        hint: Precision of the arithmetic, by OpenVINO's name.

    Raises:
        EngineError: If OpenVINO cannot run the network.
    """

    batch_size = 64
    notes = ()
    lanes = 2

    def __init__(self, info: EngineInfo, model: ov.Model, threads: int, hint: str) -> None:
        self.info = info
        self._has_features = len(model.outputs) > 1
        options = {
            "INFERENCE_PRECISION_HINT": hint,
            "INFERENCE_NUM_THREADS": str(threads),
            "NUM_STREAMS": str(threads),
            "ENABLE_CPU_PINNING": "NO",  # decoders need the cores; a pinned thread starts pinned threads
        }
        with _translated(info):
            model.reshape([_CHUNK, *info.preprocess.size_px, 3])
            compiled = CORE.compile_model(model, "CPU", options)
        self._free: SimpleQueue[ov.InferRequest] = SimpleQueue()
        for _ in range(threads):
            self._free.put(compiled.create_infer_request())
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="openvino")
        # One inference before two threads can infer at a time: OpenVINO's first use of an array waits for the GIL while
        # it holds a lock, for which another thread would wait while it holds the GIL (seen in 2026.4).
        first = self._pool.submit(self._infer_chunk, np.zeros((1, *info.preprocess.size_px, 3), np.uint8)).result()
        self._no_rows = Outputs(first.logits[:0], first.features[:0])

    def infer(self, pixels: Pixels | DevicePixels) -> Outputs:
        pixels = self.info.host_pixels(pixels)
        chunks = [pixels[start : start + _CHUNK] for start in range(0, len(pixels), _CHUNK)]
        outputs = [self._no_rows, *self._pool.map(self._infer_chunk, chunks)]
        return Outputs(
            np.concatenate([output.logits for output in outputs]),
            np.concatenate([output.features for output in outputs]),
        )

    def close(self) -> None:
        self._pool.shutdown()

    def _infer_chunk(self, chunk: Pixels) -> Outputs:
        padded = np.ascontiguousarray(chunk)
        if len(chunk) < _CHUNK:
            padded = np.concatenate([chunk, np.zeros((_CHUNK - len(chunk), *chunk.shape[1:]), np.uint8)])
        request = self._free.get()
        try:
            request.infer({0: padded}, share_inputs=True, share_outputs=True)
            logits = np.array(request.get_output_tensor(0).data[: len(chunk)])
            if not self._has_features:
                return Outputs.without_features(logits)
            return Outputs(logits, np.array(request.get_output_tensor(1).data[: len(chunk)]))
        except RuntimeError as error:
            raise EngineError(f"OpenVINO failed to infer: {' '.join(str(error).split())}") from error
        finally:
            self._free.put(request)


def _network(manifest: Manifest, onnx: Path, *, features: bool) -> ov.Model:
    """The network in an ONNX file, checked against the manifest, with the outputs that are wanted.

    Args:
        features: Whether features are an output, if the engine has any.
    """
    info = manifest.info(backend="openvino", device="cpu", precision="")
    with _translated(info):
        model = CORE.read_model(onnx)
        _check_output(info, model.input(0).partial_shape, [_CHUNK, *info.preprocess.size_px, 3], "takes pixels")
        _check_output(info, model.output(0).partial_shape, [-1, len(info.labels)], "answers logits")
        if manifest.features:
            shape = model.output("features").partial_shape
            _check_output(info, shape, [-1, manifest.features.width], "answers features")
        for result in model.get_results()[1:]:
            if not (features and manifest.features and "features" in result.output(0).names):
                model.remove_result(result)
    return model


def _check_output(info: EngineInfo, found: ov.PartialShape, shape: list[int], action: str) -> None:
    """Refuse a network whose input or output is not what the manifest says."""
    if not found.compatible(ov.PartialShape(shape)):
        raise EngineError(
            f"engine {info.name!r} {action} {found}, and its manifest says {shape}; "
            "run: batchcls build CHECKPOINT --out ENGINE --overwrite"
        )


@contextmanager
def _translated(info: EngineInfo) -> Iterator[None]:
    """Turn OpenVINO's exceptions into `EngineError`."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise EngineError(
            f"OpenVINO cannot run engine {info.name!r}: {reason}; build it again: "
            "batchcls build CHECKPOINT --out ENGINE --overwrite"
        ) from error
