"""Edit an ONNX classifier so that it answers float32 logits, whatever it answered before."""

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper

from batchcls.building.onnx.graph_steps import GraphSteps
from batchcls.building.onnx.output_kinds import LEAST_PROBABILITY, OutputFormat

_RESHAPING = ("Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten")
"""Operators that leave every value, and the order of values, as they were."""
_WIDE_TYPES = (TensorProto.FLOAT, TensorProto.DOUBLE)
_WEIGHTED = ("Gemm", "MatMul", "Conv", "ConvTranspose", "GlobalAveragePool", "AveragePool", "Einsum", "LSTM", "GRU")
"""Operators that end the search for closing operators: they mix values, by weights or by pooling."""


def closing_operators(graph: onnx.GraphProto) -> frozenset[str]:
    """Types of the operators between the last layer that mixes values, and the output."""
    makers = {name: node for node in graph.node for name in node.output}
    names, operators = [graph.output[0].name], set()
    visited = set(names)
    while names:
        node = makers.get(names.pop())
        if node is None:
            continue
        operators.add(node.op_type)
        if node.op_type not in _WEIGHTED:
            fresh = [name for name in node.input if name not in visited]
            visited.update(fresh)
            names += fresh
    return frozenset(operators)


def without_softmax(model: onnx.ModelProto, output: OutputFormat) -> onnx.ModelProto | None:
    """A copy of ``model`` without its closing Softmax or Sigmoid, which answers float32 ``logits``, (N, classes).

    None if ``model`` has no such closing, or answers logits already.
    """
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    last = makers.get(_before_reshaping(makers, graph.output[0].name))
    if output.kind == "logits" or last is None or last.op_type not in ("Softmax", "Sigmoid"):
        return None
    return _with_output(model, _before_reshaping(makers, last.input[0]), output, are_logits=True)


def with_logits_output(model: onnx.ModelProto, output: OutputFormat) -> onnx.ModelProto:
    """A copy of ``model`` that answers float32 ``logits``, (N, classes): of probabilities, their logarithms.

    Logarithms are less exact than `without_softmax`, and suit every network.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    name = _before_reshaping(makers, model.graph.output[0].name)
    return _with_output(model, name, output, are_logits=output.kind == "logits")


def _with_output(model: onnx.ModelProto, name: str, output: OutputFormat, *, are_logits: bool) -> onnx.ModelProto:
    """A copy of ``model`` that answers ``logits``, made of the values called ``name``."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    steps = GraphSteps(graph, "answer")
    name = steps.add("Cast", name, to=TensorProto.FLOAT)
    name = steps.add("Reshape", name, np.array([-1, output.numbers]))
    if output.numbers == 1:
        # softmax((0, x)) is (1 - sigmoid(x), sigmoid(x))
        first = steps.add("Sub", name, name) if are_logits else steps.add("Sub", np.array([[1]], np.float32), name)
        name = steps.add("Concat", first, name, axis=1)
    if not are_logits:
        name = steps.add("Log", steps.add("Max", name, np.array(LEAST_PROBABILITY, np.float32)))
    graph.node.append(helper.make_node("Identity", [name], ["logits"]))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", output.classes]))
    _drop_unused(graph)
    return result


def _before_reshaping(makers: Mapping[str, onnx.NodeProto], name: str) -> str:
    """Name of the values that reshaping and widening operators turned into ``name``."""
    while (node := makers.get(name)) is not None and (node.op_type in _RESHAPING or _widens(node)):
        name = node.input[0]
    return name


def _widens(node: onnx.NodeProto) -> bool:
    return node.op_type == "Cast" and any(item.name == "to" and item.i in _WIDE_TYPES for item in node.attribute)


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Remove, in place, the nodes whose results no node uses any more."""
    used = {graph.output[0].name}
    for node in reversed(list(graph.node)):
        if used.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            used.update(node.input)
