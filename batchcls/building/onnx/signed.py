"""What was quantised to unsigned bytes becomes signed, which is all that TensorRT computes with."""

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from batchcls.errors import EngineError

_WIDER = np.float32(255 / 127)
"""127 steps of a signed byte reach as far as 255 of an unsigned one."""


def signed_activations(content: bytes) -> bytes:
    """An ONNX file whose QuantizeLinear and DequantizeLinear all have int8 zero points of 0.

    TensorRT reads uint8 zero points as int8 and says so in a warning only, which would cut off the upper half of what
    follows a ReLU.

    Raises:
        EngineError: If a zero point is not 0, for which TensorRT has no equivalent.
    """
    model = onnx.load_from_string(content)
    constants = {item.name: item for item in model.graph.initializer}
    steps = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    unsigned = {tuple(node.input[1:3]) for node in steps if _is_unsigned(constants, node)}
    for scale, zero_point in unsigned:
        if numpy_helper.to_array(constants[zero_point]).any():
            raise EngineError("it was quantised around a zero point that is not 0, which TensorRT cannot compute with")
        wider = numpy_helper.to_array(constants[scale]) * _WIDER
        constants[scale].CopyFrom(numpy_helper.from_array(wider.astype(np.float32), scale))
        zeros = np.zeros(numpy_helper.to_array(constants[zero_point]).shape, np.int8)
        constants[zero_point].CopyFrom(numpy_helper.from_array(zeros, zero_point))
    for value in model.graph.value_info:
        if value.type.tensor_type.elem_type == TensorProto.UINT8:
            value.type.tensor_type.elem_type = TensorProto.INT8
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _is_unsigned(constants: Mapping[str, TensorProto], node: onnx.NodeProto) -> bool:
    return len(node.input) == 3 and constants[node.input[2]].data_type == TensorProto.UINT8
