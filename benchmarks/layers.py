"""Time that an engine spends in each kind of layer, as OpenVINO's profiler counts it on one CPU core."""

from collections import Counter
from pathlib import Path
from statistics import median

import numpy as np
import openvino as ov
from rich.table import Table

from batchcls.engine.backends.openvino_core import CORE
from batchcls.engine.manifest import ONNX, Manifest

_BATCH_SIZE = 8
"""Images of one inference, as in `batchcls.engine.backends.openvino`."""
_RUNS = 10
"""Inferences that the medians are taken over."""
_MAX_ROWS = 12


def layer_table(engine: Path) -> Table:
    """A table of the kinds of layers with the most time.

    Its columns are milliseconds of one core for one image, the fraction of the whole network, and GFLOP/s.
    """
    manifest = Manifest.read(engine)
    operations, times_ms = _profile(engine, manifest)
    kind_ms, kind_flop = Counter[str](), Counter[str]()
    for name, runs in times_ms.items():
        kind, flop = _kind(operations[name])
        kind_ms[kind] += median(runs)  # type: ignore[assignment]  # a Counter adds up floats as well
        kind_flop[kind] += flop
    title = f"{manifest.name} {manifest.precision}, one image on one core"
    table = Table("layers", "ms", "share", "GFLOP/s", title=title)
    for kind, ms in kind_ms.most_common(_MAX_ROWS):
        rate = f"{kind_flop[kind] / ms / 1e6:,.0f}" if kind_flop[kind] else ""
        table.add_row(kind, f"{ms:.3f}", f"{ms / kind_ms.total():.1%}", rate)
    return table


def _profile(engine: Path, manifest: Manifest) -> tuple[dict[str, ov.Node], dict[str, list[float]]]:
    """The compiled network's layers by name, and each one's time for one image in milliseconds, run by run."""
    model = CORE.read_model(engine / ONNX)
    model.reshape([_BATCH_SIZE, *manifest.preprocess.size_px, 3])
    hint = "bf16" if "BF16" in CORE.get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"
    options = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": "1", "NUM_STREAMS": "1", "PERF_COUNT": "YES"}
    compiled = CORE.compile_model(model, "CPU", options)
    operations = {operation.get_friendly_name(): operation for operation in compiled.get_runtime_model().get_ops()}
    times_ms: dict[str, list[float]] = {}
    request = compiled.create_infer_request()
    for _ in range(_RUNS):
        request.infer({0: np.zeros((_BATCH_SIZE, *manifest.preprocess.size_px, 3), np.uint8)})
        for node in request.profiling_info:
            if node.node_name in operations:  # the others are fused into their neighbors
                times_ms.setdefault(node.node_name, []).append(node.real_time.total_seconds() * 1e3 / _BATCH_SIZE)
    return operations, times_ms


def _kind(operation: ov.Node) -> tuple[str, int]:
    """Description of a layer of the compiled network, and its arithmetic for one image in FLOP; 0 if not counted."""
    info = operation.get_rt_info()
    layer, precision = (info[key].astype(str) for key in ("layerType", "outputPrecisions"))
    if layer != "Convolution":
        return f"{layer}, {precision}", 0
    out, kernel = tuple(operation.get_output_shape(0)), tuple(operation.get_input_shape(1))
    flop = 2 * int(np.prod(out[1:])) * int(np.prod(kernel[1:]))
    return f"Convolution {kernel[-2]}x{kernel[-1]} at {out[-2]}x{out[-1]}, {precision}", flop
