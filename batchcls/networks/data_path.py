"""The way of an image through an ONNX graph: its operators in order, their shapes, and their work."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import onnx
from onnx import helper

BATCH = 7
"""Batch size for which shapes are inferred: a number that hardly another axis has."""
WEIGHTED = ("Conv", "ConvTranspose", "MatMul", "Gemm")
"""Operators that multiply values by weights."""
_LARGEST_SHAPE = 64
"""Numbers of a constant that may be a shape, at most."""
_SHAPE_READERS = ("Shape", "Size")

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DataPath:
    """Operators that lie between a graph's image input and its output, by values; computations of shapes do not."""

    image: str
    """Name of the image input."""
    nodes: tuple[onnx.NodeProto, ...]
    """Operators, each after those whose results it takes."""
    shapes: dict[str, Shape]
    """Shape of each tensor for a batch of `BATCH` images, where it is known."""
    elements: dict[str, int]
    """ONNX type of each tensor."""

    @classmethod
    def of(cls, model: onnx.ModelProto) -> "DataPath":
        """The data path of a model with one image input, whose first output is of interest."""
        weights = {item.name for item in model.graph.initializer}
        (image,) = [value.name for value in model.graph.input if value.name not in weights]
        shapes, elements = _inferred(model, image)
        return cls(image, _nodes_between(model.graph, image), shapes, elements)

    def multiplications(self, node: onnx.NodeProto) -> int:
        """Products of weights and values that an operator computes for an image; 0 of unknown ones."""
        result, operands = self.shapes.get(node.output[0]), [self.shapes.get(name) for name in node.input[:2]]
        if not result or not all(operands) or node.op_type not in WEIGHTED:
            return 0
        first, second = operands[0] or (), operands[1] or ()
        terms = math.prod(second[1:]) if node.op_type == "Conv" else first[1 if node.op_type == "ConvTranspose" else -1]
        return math.prod(result) * terms // BATCH

    def values(self, name: str) -> int:
        """Number of values that a tensor holds of an image; 0 where its shape is unknown."""
        shape = self.shapes.get(name)
        return math.prod(shape) // BATCH if shape else 0

    def bottlenecks(self) -> Iterator[int]:
        """Positions of the operators whose result everything depends on that comes after them."""
        last_use = {name: number for number, node in enumerate(self.nodes) for name in node.input}
        furthest = last_use.get(self.image, -1)
        for number, node in enumerate(self.nodes):
            used = [name for name in node.output if name in last_use]
            if furthest <= number and used == [node.output[0]]:
                yield number
            furthest = max([furthest, *(last_use[name] for name in used)])


def _inferred(model: onnx.ModelProto, image: str) -> tuple[dict[str, Shape], dict[str, int]]:
    """Shapes and types of a model's tensors, by name."""
    copy = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    copy.graph.name = "shapes"
    copy.graph.node.extend(model.graph.node)
    copy.graph.input.extend(model.graph.input)
    inputs = {value.name for value in model.graph.input}
    for item in model.graph.initializer:
        if math.prod(item.dims) <= _LARGEST_SHAPE:
            copy.graph.initializer.append(item)
        elif item.name not in inputs:  # a weight's own shape is enough
            copy.graph.input.append(helper.make_tensor_value_info(item.name, item.data_type, item.dims))
    (value,) = [value for value in copy.graph.input if value.name == image]
    value.type.tensor_type.shape.dim[0].dim_value = BATCH
    for output in model.graph.output:
        copy.graph.output.add(name=output.name).type.tensor_type.elem_type = output.type.tensor_type.elem_type
    graph = onnx.shape_inference.infer_shapes(copy, data_prop=True).graph
    shapes: dict[str, Shape] = {item.name: tuple(item.dims) for item in graph.initializer}
    elements = {item.name: item.data_type for item in graph.initializer}
    for item in (*graph.value_info, *graph.input, *graph.output):
        elements[item.name] = item.type.tensor_type.elem_type
        sides = item.type.tensor_type.shape.dim
        if item.type.tensor_type.HasField("shape") and all(side.HasField("dim_value") for side in sides):
            shapes[item.name] = tuple(side.dim_value for side in sides)
    return shapes, elements


def _nodes_between(graph: onnx.GraphProto, image: str) -> tuple[onnx.NodeProto, ...]:
    """Operators on a path of values from ``image`` to the graph's first output."""
    reached, ahead = {image}, []
    for node in graph.node:
        if node.op_type not in _SHAPE_READERS and not reached.isdisjoint(node.input):
            reached.update(node.output)
            ahead.append(node)
    needed, between = {graph.output[0].name}, []
    for node in reversed(ahead):
        if not needed.isdisjoint(node.output):
            needed.update(node.input)
            between.append(node)
    return tuple(reversed(between))
