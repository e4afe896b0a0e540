"""Free an ONNX network of the batch size that it was exported for, where constants hold that size."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from batchcls.building.onnx.graph_steps import GraphSteps

_Lengths = Mapping[str, tuple[int | None, ...]]
_Constants = Mapping[str, npt.NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class FreedNetwork:
    """A copy of a network in which no known constant holds the batch size any more."""

    model: onnx.ModelProto
    changed: tuple[str, ...]
    """Type and name of every operator that held the batch size, such as ``Reshape 'view'``."""


def exported_batch(model: onnx.ModelProto) -> int | None:
    """Number of images that a model takes at once; None if it is free."""
    return _image_input(model).type.tensor_type.shape.dim[0].dim_value or None


def with_free_batch(model: onnx.ModelProto) -> FreedNetwork:
    """A copy of ``model`` for batches of any size, which computes the same for a batch of the exported size.

    Reshape and Expand are given a first axis that is free, and a constant that is joined to the values of images, such
    as the class token of a vision transformer, is repeated for every image. Whether that is enough has to be tried.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph, image = result.graph, _image_input(model).name
    batch, lengths, constants = exported_batch(model) or 1, _lengths(model), dict(_constants(graph))
    front = onnx.GraphProto()
    steps = GraphSteps(front, "batch")
    count = steps.add("Gather", steps.add("Shape", image), np.array([0]), axis=0)
    changed = [_title(node) for node in _with_free_strides(graph, constants, lengths, batch)]
    of_images, nodes = {image}, list(front.node)
    for number, node in enumerate(graph.node):
        if not of_images.isdisjoint(node.input):
            local = onnx.GraphProto()
            steps = GraphSteps(local, f"batch_{number}")
            if node.op_type in ("Reshape", "Expand") and len(node.input) > 1:
                shape = _free_shape(node, constants.get(node.input[1]), batch, lengths.get(node.output[0], ()))
                freed = [node.input[0], node.input[1] if shape is None else steps.constant(shape)]
            elif node.op_type == "Concat" and not _joins_first_axis(node):
                freed = [_repeated(steps, name, of_images, count, batch, lengths.get(name, ())) for name in node.input]
            else:
                freed = list(node.input)
            if freed != list(node.input):
                changed.append(_title(node))
                node.input[:] = freed
                front.initializer.extend(local.initializer)
                nodes.extend(local.node)
            of_images.update(node.output)
        nodes.append(node)
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    del graph.value_info[:]  # it names the batch size of the export
    graph.node.extend(nodes)
    graph.initializer.extend(front.initializer)
    return FreedNetwork(result, tuple(changed))


def _with_free_strides(
    graph: onnx.GraphProto, constants: _Constants, lengths: _Lengths, batch: int
) -> list[onnx.NodeProto]:
    """Gathers from the numbers of a whole batch, changed in place to gather from each image's own.

    PyTorch exports ``as_strided`` so, which it makes of a mean over height and width.
    """
    makers = {name: node for node in graph.node for name in node.output}
    changed: list[onnx.NodeProto] = []
    for node in graph.node:
        maker = makers.get(node.input[0]) if node.op_type == "Gather" else None
        if maker is None or maker.op_type != "Reshape" or constants.get(maker.input[1], np.empty(0)).tolist() != [-1]:
            continue
        places, (length,) = constants.get(node.input[1]), lengths.get(node.input[0], (None,))
        if places is None or not length or len(places) != batch:
            continue
        own = length // batch
        if np.array_equal(places, places[0] + own * np.arange(batch).reshape(-1, *[1] * (places.ndim - 1))):
            steps = GraphSteps(graph, f"strides_{len(changed)}")
            maker.input[1], node.input[1] = steps.constant(np.array([-1, own])), steps.constant(places[0])
            del node.attribute[:]
            node.attribute.append(helper.make_attribute("axis", 1))
            changed.append(node)
    return changed


def _title(node: onnx.NodeProto) -> str:
    return f"{node.op_type} {(node.name or node.output[0]).removeprefix('network/')!r}"


def _free_shape(
    node: onnx.NodeProto, shape: npt.NDArray[np.int64] | None, batch: int, lengths: tuple[int | None, ...]
) -> npt.NDArray[np.int64] | None:
    """The constant ``shape`` of a Reshape or Expand with a free first axis; None if it is free already, or not known.

    Args:
        lengths: Lengths of the result for a batch of the exported size.
    """
    if (
        shape is None
        or shape.ndim != 1
        or not shape.size
        or shape[0] < 1
        or None in lengths[1:]
        or len(lengths) < shape.size
    ):
        return None
    if node.op_type == "Expand":
        return np.array([1, *shape[1:]]) if shape[0] == batch > 1 else None
    return np.array([-1, *lengths[1:]]) if shape[0] % batch == 0 else None


def _repeated(
    steps: GraphSteps, name: str, of_images: Collection[str], count: str, batch: int, lengths: tuple[int | None, ...]
) -> str:
    """Name of a constant of ``batch`` rows once its first is repeated ``count`` times; of other values, ``name``."""
    if name in of_images or len(lengths) < 2 or lengths[0] != batch or None in lengths:
        return name
    row = steps.add("Gather", name, np.array([0]), axis=0) if batch > 1 else name
    return steps.add("Expand", row, steps.add("Concat", count, np.array(lengths[1:]), axis=0))


def _joins_first_axis(node: onnx.NodeProto) -> bool:
    return any(item.name == "axis" and item.i == 0 for item in node.attribute)


def _image_input(model: onnx.ModelProto) -> onnx.ValueInfoProto:
    weights = {initializer.name for initializer in model.graph.initializer}
    images: list[onnx.ValueInfoProto] = [value for value in model.graph.input if value.name not in weights]
    return images[0]


def _lengths(model: onnx.ModelProto) -> _Lengths:
    """Length of each axis of every value, by name, for a batch of the exported size; None where it is not known."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    _image_input(copy).type.tensor_type.shape.dim[0].dim_value = exported_batch(model) or 1
    del copy.graph.value_info[:]
    graph = onnx.shape_inference.infer_shapes(copy, data_prop=True).graph
    values = [*graph.value_info, *graph.output]
    known = {
        item.name: tuple(
            side.dim_value if side.HasField("dim_value") else None for side in item.type.tensor_type.shape.dim
        )
        for item in values
        if item.type.tensor_type.HasField("shape")
    }
    return known | {item.name: tuple(item.dims) for item in graph.initializer}


def _constants(graph: onnx.GraphProto) -> Iterator[tuple[str, npt.NDArray[np.int64]]]:
    """Names and values of the constants that may be shapes."""
    tensors = [(item.name, item) for item in graph.initializer]
    for node in graph.node:
        if node.op_type == "Constant":
            tensors += [(node.output[0], item.t) for item in node.attribute if item.name == "value"]
            for item in node.attribute:
                if item.name == "value_ints":
                    yield node.output[0], np.array(item.ints, np.int64)
    for name, item in tensors:
        if item.data_type == onnx.TensorProto.INT64:
            yield name, numpy_helper.to_array(item)
