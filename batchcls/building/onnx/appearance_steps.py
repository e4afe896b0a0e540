"""Compute the appearance numbers of images in an ONNX graph, from their raw pixels, as `appearance` defines them."""

import numpy as np
from onnx import TensorProto

from batchcls.building.onnx.graph_steps import GraphSteps
from batchcls.networks.appearance import FILTERS, OPTICAL_DENSITY_STRIDE, STAIN_CHANNEL, AppearanceFilter, middle_rows


def add_appearance(steps: GraphSteps, height: int) -> str:
    """Append steps from ``pixels`` to the appearance numbers, (N, A) float32; return their name.

    Args:
        height: Rows of an image.

    Only operators are used that are written alike in every operator set, as a convolution where Slice is not.
    """
    # Half precision, which holds every byte, keeps OpenVINO from sharing these steps with the network, whose own values
    # it would round otherwise then; and Abs, which changes nothing, from a slow transposition of bytes.
    rows = middle_rows(height)
    halves = steps.add("Cast", "pixels", to=TensorProto.FLOAT16)  # TensorRT gathers no bytes
    halves = steps.add("Gather", halves, np.arange(rows.start, rows.stop), axis=1)
    values = steps.add("Cast", steps.add("Abs", halves), to=TensorProto.FLOAT)
    planes = steps.add("Transpose", values, perm=[0, 3, 1, 2])
    numbers = [*_densities(steps, planes), *(_responses(steps, planes, each) for each in FILTERS)]
    return steps.add("Flatten", steps.add("Concat", *numbers, axis=1))


def _densities(steps: GraphSteps, planes: str) -> tuple[str, str, str]:
    """(N, 3, 1, 1) each: means and mean absolute deviations of the optical densities, and means in the stain."""
    every = np.eye(3, dtype=np.float32)[..., None, None]
    sample = steps.add("Conv", planes, every, strides=[OPTICAL_DENSITY_STRIDE] * 2)
    shares = steps.add("Mul", steps.add("Add", sample, np.float32(1)), np.float32(1 / 256))
    density = steps.add("Neg", steps.add("Log", shares))
    means = steps.add("GlobalAveragePool", density)
    deviations = steps.add("Sub", density, means)
    excess = steps.add("Relu", steps.add("Gather", deviations, np.array([STAIN_CHANNEL]), axis=1))
    return (
        means,
        steps.add("GlobalAveragePool", steps.add("Abs", deviations)),
        steps.add("GlobalAveragePool", steps.add("Mul", density, excess)),
    )


def _responses(steps: GraphSteps, planes: str, filters: AppearanceFilter) -> str:
    """(N, outputs, 1, 1): mean absolute responses to the kernels."""
    strides, dilations = list(filters.strides), [filters.dilation] * 2
    response = steps.add("Conv", planes, filters.weights, strides=strides, dilations=dilations)
    return steps.add("GlobalAveragePool", steps.add("Abs", response))
