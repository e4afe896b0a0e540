"""A float32 ONNX network becomes one that computes in eight bits, by NNCF."""

import io
import logging
from collections.abc import Iterable
from contextlib import redirect_stdout

import onnx

from batchcls.records import NormalisedImages

logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # which misses a GPU that nobody needs
import nncf  # noqa: E402

IMAGES = 300
"""That the ranges of activations are taken from."""


def quantised(model: onnx.ModelProto, images: Iterable[NormalisedImages]) -> onnx.ModelProto:
    """``model`` with QuantizeLinear and DequantizeLinear around what will be computed in int8.

    Zero points are 0: weights are signed, and what follows a ReLU is unsigned.

    Args:
        model: With one input, of normalised images.
        images: Typical ones, each as the model takes it, batch axis and all.
    """
    weights = {item.name for item in model.graph.initializer}
    (name,) = [value.name for value in model.graph.input if value.name not in weights]
    logging.getLogger("nncf").setLevel(logging.ERROR)
    with redirect_stdout(io.StringIO()):  # it draws bars there
        result: onnx.ModelProto = nncf.quantize(
            model,
            nncf.Dataset([{name: image} for image in images]),
            preset=nncf.QuantizationPreset.PERFORMANCE,
            subset_size=IMAGES,
        )
    return result
