"""What can be told of an ONNX file before anything of it is run: loops without an end, and data in other files."""

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from batchcls.errors import CheckpointError
from batchcls.storage.regular_file import IrregularError, open_regular

_MOST_ROUNDS = 10_000_000
"""Of a loop, and of one within another together: no classifier of images has as many."""
_LARGEST_BYTES = 2 << 30
"""What protobuf can hold in one message, with the data of other files."""


def check_loops(path: Path, model: onnx.ModelProto) -> None:
    """Refuse loops that go on for ever, or as good as that, as far as constants tell; others are left to a time limit.

    Raises:
        CheckpointError: Naming the loop.
    """
    for owner in (model.graph, *model.functions):
        _check_loops(path, owner, {}, 1)


def _check_loops(
    path: Path, owner: onnx.GraphProto | onnx.FunctionProto, outer: Mapping[str, TensorProto], rounds: float
) -> None:
    constants = {**outer, **_constants(owner)}
    for node in owner.node:
        within = rounds * (_rounds(node, constants) if node.op_type == "Loop" else 1)
        if within > _MOST_ROUNDS:
            name = node.name or ", ".join(node.output)
            told = "no end" if math.isinf(within) else f"{within:,.0f} rounds"
            raise CheckpointError(f"{str(path)!r} holds a Loop, {name!r}, of {told}; export it without")
        for graph in _graphs(node):
            _check_loops(path, graph, constants, within)


def _rounds(node: onnx.NodeProto, constants: Mapping[str, TensorProto]) -> float:
    """How often a Loop is gone through at least, as far as constants tell; 1 where they do not."""
    most, goes_on = (*node.input, "", "")[:2]
    body = next(iter(_graphs(node)), None)
    if body is None or not body.output:
        return 1
    if goes_on and _value(goes_on, constants) != 1:
        return 1  # it may end at once
    condition = body.output[0].name
    inside = {**constants, **_constants(body)}
    passed_on = len(body.input) > 1 and _source(condition, body) == body.input[1].name
    if not passed_on and _value(_source(condition, body), inside) != 1:
        return 1
    limit = _value(most, constants) if most else math.inf
    return 1 if limit is None else limit


def _constants(owner: onnx.GraphProto | onnx.FunctionProto) -> dict[str, TensorProto]:
    """Tensors of one value, by name."""
    found = {item.name: item for item in getattr(owner, "initializer", ())}
    for node in owner.node:
        if not node.output:  # damaged, as the checker is going to say
            continue
        tensors = [item.t for item in node.attribute if item.name == "value" and item.HasField("t")]
        numbers = [np.array(item.i) for item in node.attribute if item.name == "value_int"]
        if node.op_type == "Constant" and (tensors or numbers):
            found[node.output[0]] = tensors[0] if tensors else numpy_helper.from_array(numbers[0])
        elif node.op_type == "Identity" and node.input and node.input[0] in found:
            found[node.output[0]] = found[node.input[0]]
    return {name: item for name, item in found.items() if list(item.dims) in ([], [1])}


def _value(name: str, constants: Mapping[str, TensorProto]) -> float | None:
    item = constants.get(name)
    if item is None or item.data_location == TensorProto.EXTERNAL:
        return None
    return float(numpy_helper.to_array(item).reshape(-1)[0])


def _source(name: str, graph: onnx.GraphProto) -> str:
    """What ``name`` is but another name of."""
    makers = {output: node for node in graph.node for output in node.output}
    for _ in graph.node:
        node = makers.get(name)
        if node is None or node.op_type != "Identity" or not node.input:
            break
        name = node.input[0]
    return name


def check_external_data(folder: Path, model: onnx.ModelProto) -> None:
    """Refuse data in files that are not below the ONNX file's own ``folder``, are none, or hold less than is said.

    Raises:
        ValueError: Naming the file.
    """
    total, home = 0, os.path.realpath(folder)
    for item in _tensors(model):
        if item.data_location != TensorProto.EXTERNAL:
            continue
        told = {entry.key: entry.value for entry in item.external_data}
        location = told.get("location", "")
        file = os.path.realpath(os.path.join(home, location))
        if not location or os.path.commonpath([home, file]) != home or file == home:
            raise ValueError(f"it keeps data in {location!r}, which is not below its own folder")
        try:
            stream, status = open_regular(file)
            stream.close()
            start, length = int(told.get("offset", 0)), int(told.get("length", status.st_size))
        except (OSError, IrregularError, ValueError) as error:
            raise ValueError(f"it keeps data in {location!r}: {error}") from error
        total += length
        if min(start, length) < 0 or start + length > status.st_size or total > _LARGEST_BYTES:
            raise ValueError(
                f"it keeps {length:,} bytes from {start:,} on in {location!r}, which has "
                f"{status.st_size:,}; {_LARGEST_BYTES:,} in all are the most"
            )


def _tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Every tensor of a model, at any depth."""
    owners: list[onnx.GraphProto | onnx.FunctionProto] = [model.graph, *model.functions]
    while owners:
        owner = owners.pop()
        yield from getattr(owner, "initializer", ())
        for item in getattr(owner, "sparse_initializer", ()):
            yield from (item.values, item.indices)
        for node in owner.node:
            owners += _graphs(node)
            for attribute in node.attribute:
                sparse = [
                    *attribute.sparse_tensors,
                    *([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []),
                ]
                yield from (
                    attribute.t,
                    *attribute.tensors,
                    *(part for item in sparse for part in (item.values, item.indices)),
                )


def _graphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    return [graph for item in node.attribute for graph in ((item.g,) if item.HasField("g") else item.graphs)]
