"""The weights in an engine's ONNX file, as far as they have the names that PyTorch gave them."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from batchcls.networks.feature_layout import STEP_PREFIX

_PREFIX = "network."
"""Prefix that the export gives to the names of the network's weights."""
_FOLDED = ".weight_bias"
"""End of the names of biases that the exporter made from batch normalizations that torch.fx could not fold."""
_LAYERS = ("Conv", "Gemm", "MatMul")


def named_weights(path: Path) -> dict[str, npt.NDArray[np.float32]]:
    """The weights in an ONNX file by PyTorch's names of them, in float32."""
    return {
        item.name.removeprefix(_PREFIX): numpy_helper.to_array(item).astype(np.float32)
        for item in onnx.load(path).graph.initializer
        if item.name.startswith(_PREFIX)
    }


def names_every_weight(path: Path) -> bool:
    """Whether all weights of the network's layers in an ONNX file have PyTorch's names.

    Those of convolutional networks do; of transformers the exporter transposes the weights, and names them anew.
    """
    graph = onnx.load(path).graph
    constants = {item.name for item in graph.initializer if not item.name.startswith(STEP_PREFIX)}
    weights = {name for node in graph.node if node.op_type in _LAYERS for name in node.input[1:] if name in constants}
    return all(name.startswith(_PREFIX) and not name.endswith(_FOLDED) for name in weights)
