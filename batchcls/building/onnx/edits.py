"""Edits of an ONNX graph: preprocessing in front, a temperature behind, activations that TensorRT can compute with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from batchcls.building.onnx.graph_steps import GraphSteps
from batchcls.errors import EngineError
from batchcls.networks.preprocess import LUMA, LUMA_TOTAL, Preprocess

_WIDER = np.float32(255 / 127)
"""Factor of a quantization step: 127 steps of a signed byte reach as far as 255 steps of an unsigned byte."""
_AXES_AS_INPUT = 13
"""First operator set whose ReduceSum takes its axes as an input."""


def with_preprocessing(model: onnx.ModelProto, layout: str, preprocess: Preprocess) -> onnx.ModelProto:
    """A copy of ``model`` whose input is ``pixels``, (N, H, W, 3) uint8, with a free batch size.

    Normalization is put in front, unless the network takes uint8: then it normalizes by itself.

    Args:
        layout: ``NCHW`` or ``NHWC``, of the model's input.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    weights = {initializer.name for initializer in graph.initializer}
    (network_input,) = [value for value in graph.input if value.name not in weights]
    front = onnx.GraphProto()
    name = _network_input(GraphSteps(front, "pixels"), model, network_input.type.tensor_type.elem_type, preprocess)
    operator, perm = ("Transpose", [0, 3, 1, 2]) if layout == "NCHW" else ("Identity", None)
    front.node.append(helper.make_node(operator, [name], [network_input.name], perm=perm))
    graph.initializer.extend(front.initializer)
    all_nodes = [*front.node, *graph.node]
    del graph.node[:]
    graph.node.extend(all_nodes)
    graph.input.remove(network_input)
    graph.input.insert(0, helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", *preprocess.size_px, 3]))
    del graph.value_info[:]  # it names the batch size of the export
    onnx.checker.check_model(result)
    return result


def _network_input(steps: GraphSteps, model: onnx.ModelProto, element: int, preprocess: Preprocess) -> str:
    """Add the steps from ``pixels`` to the network's input, channels last, of type ``element``; return its name."""
    takes_bytes = element == TensorProto.UINT8
    name = _gray(steps, model) if preprocess.channels == "L" else "pixels"
    if not takes_bytes:
        name = steps.add("Cast", name, to=TensorProto.FLOAT)  # before the Gather: TensorRT gathers no uint8
    elif preprocess.channels == "L":
        name = steps.add("Cast", name, to=TensorProto.UINT8)
    if preprocess.channels == "BGR":
        name = steps.add("Gather", name, np.array([2, 1, 0]), axis=3)
    if takes_bytes:
        return name
    mean, std = np.asarray(preprocess.mean, np.float32), np.asarray(preprocess.std, np.float32)
    name = steps.add("Mul", steps.add("Sub", name, mean * 255), 1 / (255 * std))
    return steps.add("Cast", name, to=element)


def _gray(steps: GraphSteps, model: onnx.ModelProto) -> str:
    """Add the steps from ``pixels`` to (N, H, W, 1) int32, 0 to 255, as `Preprocess.ordered`; return their name.

    They are integers, which no runtime rounds to bfloat16; and OpenVINO rounds the quotient of two integers, where
    other runtimes cut it off.
    """
    parts = steps.add("Mul", steps.add("Cast", "pixels", to=TensorProto.INT32), LUMA)
    (opset,) = [item.version for item in model.opset_import if item.domain in ("", "ai.onnx")]
    axis: dict[str, Any] = {} if opset >= _AXES_AS_INPUT else {"axes": [3]}
    parts = steps.add("ReduceSum", parts, *([] if axis else [np.array([3])]), **axis, keepdims=1)
    total = np.int32(LUMA_TOTAL)
    parts = steps.add("Add", parts, total // 2)
    quotient = steps.add("Div", parts, total)
    exceeds = steps.add("Less", parts, steps.add("Mul", quotient, total))
    return steps.add("Sub", quotient, steps.add("Cast", exceeds, to=TensorProto.INT32))


def divide_logits(path: Path, temperature: float) -> None:
    """Divide the ``logits`` of the ONNX file at ``path`` by ``temperature``, in place.

    Source: Guo et al., On calibration of modern neural networks, 2017.
    """
    model = onnx.load(path)
    graph = model.graph
    for node in graph.node:
        node.output[:] = ["untempered" if name == "logits" else name for name in node.output]
        node.input[:] = ["untempered" if name == "logits" else name for name in node.input]
    graph.initializer.append(numpy_helper.from_array(np.array(1 / temperature, np.float32), "inverse_temperature"))
    graph.node.append(helper.make_node("Mul", ["untempered", "inverse_temperature"], ["logits"]))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def with_signed_activations(content: bytes) -> bytes:
    """An ONNX file whose QuantizeLinear and DequantizeLinear all have int8 zero points of 0.

    TensorRT computes with signed bytes alone. It reads uint8 zero points as int8 and only warns, which would cut off
    the upper half of the activations behind a ReLU.

    Raises:
        EngineError: If a zero point is not 0, for which TensorRT has no equivalent.
    """
    model = onnx.load_from_string(content)
    constants = {item.name: item for item in model.graph.initializer}
    steps = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    unsigned = {tuple(node.input[1:3]) for node in steps if _is_unsigned(constants, node)}
    for scale, zero_point in unsigned:
        if numpy_helper.to_array(constants[zero_point]).any():
            raise EngineError(
                "the network was quantized around a zero point that is not 0, which TensorRT cannot compute with; "
                "run: batchcls build CHECKPOINT --out ENGINE --overwrite --precision int8 --calibrate DIR"
            )
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
    """Whether a quantizing node's zero point is uint8."""
    return len(node.input) == 3 and constants[node.input[2]].data_type == TensorProto.UINT8
