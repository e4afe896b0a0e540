"""Engine folders opened, and their answers compared."""

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from batchcls.engine.backends import open_engine
from batchcls.engine.base import Engine
from batchcls.engine.manifest import Manifest
from batchcls.engine.postprocess import to_predictions
from batchcls.records import Logits, Pixels


def opened_engine(folder: Path, **options: Any) -> Engine:
    """The engine in ``folder``; by OpenVINO on the CPU, with two threads, unless ``options`` say otherwise."""
    defaults = {"backend": "openvino", "device": "cpu", "threads": 2}
    return open_engine(folder, Manifest.read(folder), **{**defaults, **options})


def engine_logits(folder: Path, pixels: Pixels, **options: Any) -> Logits:
    """(N, classes) logits of ``pixels``, by an engine opened as by `opened_engine`."""
    with closing(opened_engine(folder, **options)) as engine:
        return engine.infer(pixels).logits


def largest_difference(ours: Logits, expected: Logits) -> float:
    """Largest difference of a probability between two answers to the same images."""
    return float(np.abs(to_predictions(ours).probabilities - to_predictions(expected).probabilities).max())


def onnxruntime_logits(content: bytes, pixels: Pixels) -> Logits:
    """(N, classes) logits by ONNX Runtime, which computes each operator of an ONNX file as it is defined."""
    import onnxruntime  # not where only a GPU is tested

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"pixels": pixels})[0])
