"""Where an engine's own time goes, by kind of layer, as OpenVINO counts it on one core."""

from collections import Counter
from pathlib import Path
from statistics import median

import numpy as np
import openvino as ov
from rich.table import Table

from batchcls.engine.manifest import ONNX, Manifest

_CHUNK = 8
"""Images at a time, as `batchcls.engine.backends.openvino` has it."""
_RUNS = 10


def layers(engine: Path) -> Table:
    """A table of the layers' kinds: milliseconds of one core for an image, share, and arithmetic done in a second."""
    info = Manifest.read(engine)
    core = ov.Core()
    model = core.read_model(engine / ONNX)
    model.reshape([_CHUNK, *info.preprocess.size_px, 3])
    hint = "bf16" if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"
    options = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": "1", "NUM_STREAMS": "1", "PERF_COUNT": "YES"}
    compiled = core.compile_model(model, "CPU", options)
    operations = {operation.get_friendly_name(): operation for operation in compiled.get_runtime_model().get_ops()}
    times: dict[str, list[float]] = {}
    request = compiled.create_infer_request()
    for _ in range(_RUNS):
        request.infer({0: np.zeros((_CHUNK, *info.preprocess.size_px, 3), np.uint8)})
        for node in request.profiling_info:
            if node.node_name in operations:  # others are done within their neighbours
                times.setdefault(node.node_name, []).append(node.real_time.total_seconds() * 1e3 / _CHUNK)
    spent, done = Counter[str](), Counter[str]()
    for name, runs in times.items():
        kind, flop = _kind(operations[name])
        spent[kind] += median(runs)  # type: ignore[assignment]  # a Counter adds up floats as well
        done[kind] += flop
    table = Table("layers", "ms", "share", "GFLOP/s", title=f"{info.name} {info.precision}, one image on one core")
    for kind, ms in spent.most_common(12):
        rate = f"{done[kind] / ms / 1e6:,.0f}" if done[kind] else ""
        table.add_row(kind, f"{ms:.3f}", f"{ms / spent.total():.1%}", rate)
    return table


def _kind(operation: ov.Node) -> tuple[str, int]:
    """What a layer of the compiled network is, and how much arithmetic it does for an image, in FLOP."""
    notes = operation.get_rt_info()
    layer, precision = (notes[key].astype(str) for key in ("layerType", "outputPrecisions"))
    if layer != "Convolution":
        return f"{layer}, {precision}", 0
    out, kernel = tuple(operation.get_output_shape(0)), tuple(operation.get_input_shape(1))
    flop = 2 * int(np.prod(out[1:])) * int(np.prod(kernel[1:]))
    return f"Convolution {kernel[-2]}x{kernel[-1]} at {out[-2]}x{out[-1]}, {precision}", flop
