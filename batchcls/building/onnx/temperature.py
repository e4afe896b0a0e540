"""A network's confidence is cooled or warmed: its logits divided by a temperature.

Source: Guo et al., On calibration of modern neural networks, 2017.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from batchcls.records import Logits, NormalisedImages


def temper(path: Path, temperature: float) -> None:
    """Divide the ``logits`` of the ONNX file by ``temperature``, in place."""
    model = onnx.load(path)
    graph = model.graph
    for node in graph.node:
        node.output[:] = ["untempered" if name == "logits" else name for name in node.output]
        node.input[:] = ["untempered" if name == "logits" else name for name in node.input]
    graph.initializer.append(numpy_helper.from_array(np.array(1 / temperature, np.float32), "inverse_temperature"))
    graph.node.append(helper.make_node("Mul", ["untempered", "inverse_temperature"], ["logits"]))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def tempered(answer: Callable[[NormalisedImages], Logits], temperature: float) -> Callable[[NormalisedImages], Logits]:
    """``answer`` with its logits divided by ``temperature``."""
    return lambda images: answer(images) / np.float32(temperature)
