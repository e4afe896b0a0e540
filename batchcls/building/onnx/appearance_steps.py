"""Compute the appearance of images in an ONNX graph, from their raw pixels."""

import numpy as np
from onnx import TensorProto

from batchcls.building.onnx.graph_steps import GraphSteps

_STRIDE = 4


def add_appearance(steps: GraphSteps) -> str:
    """Append steps from ``pixels`` to the appearance numbers, (N, A) float32; return their name."""
    planes = steps.add("Transpose", steps.add("Cast", "pixels", to=TensorProto.FLOAT), perm=[0, 3, 1, 2])
    sample = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)
    values = steps.add("Conv", planes, sample, strides=[_STRIDE, _STRIDE])
    darkest = steps.add("Max", values, np.float32(1))
    densities = steps.add("Sub", np.float32(np.log(255)), steps.add("Log", darkest))
    means = steps.add("GlobalAveragePool", densities)
    deviations = steps.add("GlobalAveragePool", steps.add("Abs", steps.add("Sub", densities, means)))
    return steps.add("Flatten", steps.add("Concat", means, deviations, axis=1))
