"""Check an ONNX file before anything of it is run: no endless loops, and no data in files elsewhere."""

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
"""Rounds of a loop, times the rounds of the loops around it; no classifier of images has as many."""
_LARGEST_BYTES = 2 << 30
"""Bytes of data in other files, at most: what protobuf can hold in one message."""


def check_loops(path: Path, model: onnx.ModelProto) -> None:
    """Refuse loops that constants show to be endless, or nearly; a time limit on running the file ends all others.

    Args:
        path: The file that ``model`` was read from, for errors.

    Raises:
        CheckpointError: If there is such a loop; the message names it.
    """
    for owner in (model.graph, *model.functions):
        _check_loops(path, owner, {}, 1)


def _check_loops(
    path: Path, owner: onnx.GraphProto | onnx.FunctionProto, outer: Mapping[str, TensorProto], rounds: float
) -> None:
    """Check the loops of a graph that is gone through ``rounds`` times; ``outer`` are the constants around it."""
    constants = {**outer, **_constants(owner)}
    for node in owner.node:
        within = rounds * (_rounds(node, constants) if node.op_type == "Loop" else 1)
        if within > _MOST_ROUNDS:
            name = node.name or ", ".join(node.output)
            length = "no end" if math.isinf(within) else f"{within:,.0f} rounds"
            raise CheckpointError(f"{str(path)!r} holds a Loop, {name!r}, of {length}; export it without")
        for graph in _graphs(node):
            _check_loops(path, graph, constants, within)


def _rounds(node: onnx.NodeProto, constants: Mapping[str, TensorProto]) -> float:
    """Least number of rounds of a Loop, as far as constants tell; 1 where they do not."""
    limit_name, condition_name = (*node.input, "", "")[:2]
    body = next(iter(_graphs(node)), None)
    if body is None or not body.output:
        return 1
    if condition_name and _value(condition_name, constants) != 1:
        return 1  # the loop may end at once
    condition = body.output[0].name
    inside = {**constants, **_constants(body)}
    passed_on = len(body.input) > 1 and _source(condition, body) == body.input[1].name
    if not passed_on and _value(_source(condition, body), inside) != 1:
        return 1
    limit = _value(limit_name, constants) if limit_name else math.inf
    return 1 if limit is None else limit


def _constants(owner: onnx.GraphProto | onnx.FunctionProto) -> dict[str, TensorProto]:
    """Constant tensors of one number, by name."""
    tensors = {item.name: item for item in getattr(owner, "initializer", ())}
    for node in owner.node:
        if not node.output:  # damaged; ONNX's own checker refuses it later
            continue
        own = [item.t for item in node.attribute if item.name == "value" and item.HasField("t")]
        numbers = [np.array(item.i) for item in node.attribute if item.name == "value_int"]
        if node.op_type == "Constant" and (own or numbers):
            tensors[node.output[0]] = own[0] if own else numpy_helper.from_array(numbers[0])
        elif node.op_type == "Identity" and node.input and node.input[0] in tensors:
            tensors[node.output[0]] = tensors[node.input[0]]
    return {name: item for name, item in tensors.items() if list(item.dims) in ([], [1])}


def _value(name: str, constants: Mapping[str, TensorProto]) -> float | None:
    """Number that a constant holds; None if ``name`` is none, or its data lies in another file."""
    item = constants.get(name)
    if item is None or item.data_location == TensorProto.EXTERNAL:
        return None
    return float(numpy_helper.to_array(item).reshape(-1)[0])


def _source(name: str, graph: onnx.GraphProto) -> str:
    """Name of the value that Identity operators passed on as ``name``."""
    makers = {output: node for node in graph.node for output in node.output}
    for _ in graph.node:
        node = makers.get(name)
        if node is None or node.op_type != "Identity" or not node.input:
            break
        name = node.input[0]
    return name


def check_external_data(folder: Path, model: onnx.ModelProto) -> None:
    """Refuse data in files outside the ONNX file's own ``folder``, in irregular files, and beyond a file's end.

    Raises:
        ValueError: If there are such data; the message names the file.
    """
    total, home = 0, os.path.realpath(folder)
    for item in _tensors(model):
        if item.data_location != TensorProto.EXTERNAL:
            continue
        place = {entry.key: entry.value for entry in item.external_data}
        location = place.get("location", "")
        file = os.path.realpath(os.path.join(home, location))
        if not location or os.path.commonpath([home, file]) != home or file == home:
            raise ValueError(f"it keeps data in {location!r}, which is not below its own folder")
        try:
            stream, status = open_regular(file)
            stream.close()
            start, length = int(place.get("offset", 0)), int(place.get("length", status.st_size))
        except (OSError, IrregularError, ValueError) as error:
            raise ValueError(f"it keeps data in {location!r}: {error}") from error
        total += length
        if min(start, length) < 0 or start + length > status.st_size or total > _LARGEST_BYTES:
            raise ValueError(
                f"it keeps {length:,} bytes from {start:,} on in {location!r}, which has "
                f"{status.st_size:,}; {_LARGEST_BYTES:,} in all are the most"
            )


def _tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Every tensor of a model, also of the graphs inside its operators."""
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
    """Graphs inside an operator, such as a Loop's body."""
    return [graph for item in node.attribute for graph in ((item.g,) if item.HasField("g") else item.graphs)]
