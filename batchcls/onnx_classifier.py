"""Somebody's ONNX classifier becomes one that eats pixels and answers logits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.compose
import openvino as ov
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper, numpy_helper

from batchcls.errors import CheckpointError
from batchcls.records import Logits, NormalisedImages, Preprocess

_FLOATS = {TensorProto.FLOAT: "fp32", TensorProto.FLOAT16: "fp16"}
_SHOWN_REASON = 400
_LARGEST_BYTES = 2 << 30
"""What protobuf can hold in one message."""


@dataclass(frozen=True, slots=True)
class OnnxClassifier:
    """An ONNX file's network, and what it wants to be fed with."""

    model: onnx.ModelProto
    layout: str
    """``NCHW`` or ``NHWC``."""
    size_px: tuple[int, int] | None
    """Height and width; None if they are free."""
    precision: str
    classes: int
    normalises: bool
    """It takes uint8, so it has a normalisation of its own."""


def load_classifier(path: Path, layout: str = "auto") -> OnnxClassifier:
    """Read and check an ONNX classifier with one image input and one (N, classes) output.

    Args:
        layout: ``NCHW``, ``NHWC``, or ``auto``: wherever the three channels are.

    Raises:
        CheckpointError: If the file is damaged, or is no such classifier.
    """
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise CheckpointError(f"{str(path)!r} is larger than ONNX allows in one file")
        model = onnx.load(path)
        onnx.checker.check_model(model)
        model = onnx.compose.add_prefix(model, "network/")  # so that no name of ours is taken
    except (DecodeError, onnx.checker.ValidationError, ValueError, OSError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(f"{str(path)!r} cannot be read as ONNX: {reason}") from error
    weights = {initializer.name for initializer in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1 or len(model.graph.output) != 1:
        raise CheckpointError(
            f"{str(path)!r} has {len(inputs)} inputs and {len(model.graph.output)} outputs; "
            "a classifier has one each: export it again without the others"
        )
    element, shape = inputs[0].type.tensor_type.elem_type, _shape(inputs[0])
    if len(shape) != 4 or element not in (*_FLOATS, TensorProto.UINT8):
        kind = TensorProto.DataType.Name(element)
        raise CheckpointError(f"{str(path)!r} takes {kind} of shape {shape}; it must be float or uint8 images, rank 4")
    layout = _layout(path, shape, layout)
    height, width = shape[2:] if layout == "NCHW" else shape[1:3]
    _answer_logits(path, model)
    classes = _shape(onnx.shape_inference.infer_shapes(model).graph.output[0])[-1:]
    if not classes or classes[0] is None:
        raise CheckpointError(f"the output of {str(path)!r} has no fixed number of classes; export it with one")
    size_px = (height, width) if height and width else None
    weights_type = next((item.data_type for item in model.graph.initializer if item.data_type in _FLOATS), element)
    return OnnxClassifier(
        model, layout, size_px, _FLOATS.get(weights_type, "fp32"), classes[0], element == TensorProto.UINT8
    )


def with_preprocessing(classifier: OnnxClassifier, preprocess: Preprocess) -> onnx.ModelProto:
    """The same network with ``pixels``, (N, H, W, 3) uint8, as its input; the batch size is free.

    Normalisation goes in front, unless the network takes uint8: then it has its own.
    """
    model = onnx.ModelProto()
    model.CopyFrom(classifier.model)
    graph = model.graph
    weights = {initializer.name for initializer in graph.initializer}
    (old,) = [value for value in graph.input if value.name not in weights]
    element = old.type.tensor_type.elem_type
    steps: list[tuple[str, Sequence[str], dict[str, Any]]] = []
    reversal: list[tuple[str, Sequence[str], dict[str, Any]]] = []
    if preprocess.channels == "BGR":
        graph.initializer.append(numpy_helper.from_array(np.array([2, 1, 0]), "pixels_order"))
        reversal.append(("Gather", ["pixels_order"], {"axis": 3}))
    if element != TensorProto.UINT8:
        mean, std = np.asarray(preprocess.mean, np.float32), np.asarray(preprocess.std, np.float32)
        graph.initializer.append(numpy_helper.from_array(mean * 255, "pixels_mean"))
        graph.initializer.append(numpy_helper.from_array(1 / (255 * std), "pixels_scale"))
        steps += [
            ("Cast", [], {"to": TensorProto.FLOAT}),
            *reversal,
            ("Sub", ["pixels_mean"], {}),
            ("Mul", ["pixels_scale"], {}),
            ("Cast", [], {"to": element}),
        ]
    else:
        steps += reversal
    if classifier.layout == "NCHW":
        steps.append(("Transpose", [], {"perm": [0, 3, 1, 2]}))
    steps.append(("Identity", [], {}))
    before = "pixels"
    nodes = []
    for number, (operator, more, attributes) in enumerate(steps):
        after = old.name if number == len(steps) - 1 else f"pixels_{number}"
        nodes.append(helper.make_node(operator, [before, *more], [after], **attributes))
        before = after
    everything = [*nodes, *graph.node]
    del graph.node[:]
    graph.node.extend(everything)
    graph.input.remove(old)
    graph.input.insert(0, helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", *preprocess.size_px, 3]))
    del graph.value_info[:]  # they say what batch size it was exported with
    onnx.checker.check_model(model)
    return model


def own_answer(path: Path, classifier: OnnxClassifier) -> Callable[[NormalisedImages], Logits]:
    """How the ONNX file itself answers: in float32, one image at a time, whatever batch it was exported for.

    Raises:
        CheckpointError: If OpenVINO cannot run what was read from ``path``.
    """
    core = ov.Core()
    try:
        model = core.read_model(classifier.model.SerializeToString())
        shape = model.input(0).partial_shape
        shape[0] = 1  # of a free batch size OpenVINO 2026.4 computes int8 wrongly
        model.reshape(shape)
        compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"OpenVINO cannot run {str(path)!r}: {reason[-_SHOWN_REASON:]}") from error
    axes = (0, 1, 2, 3) if classifier.layout == "NCHW" else (0, 2, 3, 1)

    def answer(images: NormalisedImages) -> Logits:
        ordered = images.transpose(axes)
        if classifier.normalises:  # by itself, so here nothing but the scale was changed
            ordered = np.rint(ordered * 255).astype(np.uint8)
        ordered = np.ascontiguousarray(ordered, compiled.input(0).element_type.to_dtype())
        return np.concatenate([compiled({0: image[None]})[0] for image in ordered])

    return answer


def _answer_logits(path: Path, model: onnx.ModelProto) -> None:
    """Make the output float32 ``logits``, in place: a closing Softmax goes, a closing Sigmoid becomes two classes."""
    graph = model.graph
    output = graph.output[0]
    last, name, classes = _last_step(graph), output.name, _shape(output)[-1:]
    if last is None:
        raise CheckpointError(f"{str(path)!r} answers with its own input; it is no classifier")
    if last.op_type in ("Softmax", "Sigmoid"):
        name = last.input[0]
    if last.op_type == "Sigmoid":
        if classes != (1,):
            raise CheckpointError(
                f"{str(path)!r} ends in a Sigmoid over {classes} outputs, so an image may have several labels at once; "
                "batchcls gives each just one"
            )
        # softmax((0, x)) is (1 - sigmoid(x), sigmoid(x))
        graph.node.append(helper.make_node("Sub", [name, name], ["first_logit"]))
        graph.node.append(helper.make_node("Concat", ["first_logit", name], ["both_logits"], axis=1))
        name, classes = "both_logits", (2,)
    if output.type.tensor_type.elem_type == TensorProto.FLOAT:
        graph.node.append(helper.make_node("Identity", [name], ["logits"]))
    else:
        graph.node.append(helper.make_node("Cast", [name], ["logits"], to=TensorProto.FLOAT))
    graph.output.remove(output)
    graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", *classes]))
    _drop_unused(graph)


def _last_step(graph: onnx.GraphProto) -> onnx.NodeProto | None:
    """What makes the output, but for changes of its type; None if nothing does."""
    makers = {name: node for node in graph.node for name in node.output}
    last = makers.get(graph.output[0].name)
    while last is not None and last.op_type in ("Cast", "Identity"):
        last = makers.get(last.input[0])
    return last


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Remove the steps whose results nobody uses any more, in place."""
    used = {graph.output[0].name}
    for node in reversed(list(graph.node)):
        if used.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            used.update(node.input)


def _layout(path: Path, shape: tuple[int | None, ...], asked: str) -> str:
    found = {layout for layout, axis in (("NCHW", 1), ("NHWC", 3)) if shape[axis] == 3}
    if asked != "auto" and (asked in found or not found):
        return asked
    if len(found) == 1 and asked == "auto":
        return found.pop()
    raise CheckpointError(
        f"{str(path)!r} takes {shape}, which does not show one axis of 3 channels for layout {asked!r}; "
        'set layout = "NCHW" or "NHWC" in a recipe'
    )


def _shape(value: onnx.ValueInfoProto) -> tuple[int | None, ...]:
    """A value's sides; None where they are free."""
    sides = value.type.tensor_type.shape.dim
    return tuple(side.dim_value if side.HasField("dim_value") and side.dim_value > 0 else None for side in sides)
