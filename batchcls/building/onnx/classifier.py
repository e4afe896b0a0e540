"""Somebody's ONNX classifier becomes one that eats pixels and answers logits."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.compose
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper, numpy_helper

from batchcls.building.onnx.answers import Answers, typical_images
from batchcls.building.onnx.graphs import check_external_data, check_loops
from batchcls.building.onnx.normalization import input_warning
from batchcls.building.onnx.outputs import Judgement
from batchcls.building.onnx.session import Outputs
from batchcls.building.onnx.trial import try_out
from batchcls.errors import CheckpointError
from batchcls.records import LARGEST_SIDE_PX, Logits, NormalisedImages, Preprocess
from batchcls.storage.regular_file import check_regular

_FLOATS: dict[int, str] = {TensorProto.FLOAT: "fp32", TensorProto.FLOAT16: "fp16"}
_ANSWERS = (*_FLOATS, TensorProto.DOUBLE, TensorProto.BFLOAT16, TensorProto.UNDEFINED)
_SMALLEST_CHANGE = 0.0005
"""Of a probability, that is worth a line."""
_LARGEST_BYTES = 2 << 30
"""What protobuf can hold in one message."""


@dataclass(frozen=True, slots=True)
class OnnxClassifier:
    """An ONNX file's network, and what it wants to be fed with."""

    model: onnx.ModelProto
    """Answers float32 ``logits``, (N, classes)."""
    layout: str
    """``NCHW`` or ``NHWC``."""
    size_px: tuple[int, int] | None
    """Height and width; None if they are free."""
    precision: str
    outputs: Judgement
    """What the file's own outputs are."""
    normalises: bool
    """It takes uint8, so it has a normalisation of its own."""
    own: Callable[[NormalisedImages], Outputs]
    """The file as it is: what it answers to normalised images, before anything was changed."""

    @property
    def classes(self) -> int:
        return self.outputs.classes


def load_classifier(
    path: Path, layout: str = "auto", preprocess: Preprocess | None = None, outputs: str = "auto"
) -> OnnxClassifier:
    """Read and check an ONNX classifier with one image input and one output.

    Args:
        layout: ``NCHW``, ``NHWC``, or ``auto``: wherever the three channels are.
        preprocess: Of the images that it is tried with; its size counts if the file's is free.
        outputs: ``logits``, ``probabilities``, or ``auto``: what its answers to drawn images are.

    Raises:
        CheckpointError: If the file is damaged, or is no such classifier.
    """
    preprocess = preprocess or Preprocess()
    model = _read(path)
    given = _image_input(path, model)
    element, shape = given.type.tensor_type.elem_type, _shape(given)
    if len(shape) != 4 or element not in (*_FLOATS, TensorProto.UINT8):
        kind = _type_name(element)
        raise CheckpointError(f"{str(path)!r} takes {kind} of shape {shape}; it must be float or uint8 images, rank 4")
    layout = _layout(path, shape, layout)
    height, width = shape[2:] if layout == "NCHW" else shape[1:3]
    size_px = (height, width) if height and width else None
    if size_px and max(size_px) > LARGEST_SIDE_PX:
        raise CheckpointError(
            f"{str(path)!r} takes images of {height} x {width} pixels; {LARGEST_SIDE_PX} are the most"
        )
    weights_type = next((item.data_type for item in model.graph.initializer if item.data_type in _FLOATS), element)
    precision = _FLOATS.get(weights_type, "fp32")
    normalises = element == TensorProto.UINT8
    images = typical_images(size_px or preprocess.size_px, preprocess, plain=normalises)
    try_out(path, model, layout, size_px or preprocess.size_px)
    answers = Answers.tried(path, model, layout, images, outputs, precision)
    return OnnxClassifier(answers.model, layout, size_px, precision, answers.judgement, normalises, answers.own)


def _read(path: Path) -> onnx.ModelProto:
    try:
        check_regular(path)
        if path.stat().st_size > _LARGEST_BYTES:
            raise CheckpointError(f"{str(path)!r} is larger than ONNX allows in one file")
        model = onnx.load(path, load_external_data=False)
        check_loops(path, model)
        check_external_data(path.parent, model)
        onnx.load_external_data_for_model(model, os.fspath(path.parent))
        onnx.checker.check_model(model)
        return onnx.compose.add_prefix(model, "network/")  # so that no name of ours is taken
    except (DecodeError, onnx.checker.ValidationError, ValueError, TypeError, OSError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(f"{str(path)!r} cannot be read as ONNX: {reason}") from error


def _type_name(element: int) -> str:
    known = TensorProto.DataType.values()
    return str(TensorProto.DataType.Name(element)) if element in known else f"an unknown type ({element})"


def _image_input(path: Path, model: onnx.ModelProto) -> onnx.ValueInfoProto:
    """The one input of a file that has one output, too."""
    weights = {initializer.name for initializer in model.graph.initializer}
    inputs: list[onnx.ValueInfoProto] = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1 or len(model.graph.output) != 1:
        raise CheckpointError(
            f"{str(path)!r} has {len(inputs)} inputs and {len(model.graph.output)} outputs; "
            "a classifier has one each: export it again without the others"
        )
    (output,) = model.graph.output
    element = output.type.tensor_type.elem_type
    if not output.type.HasField("tensor_type") or element not in _ANSWERS:
        kind = _type_name(element) if output.type.HasField("tensor_type") else "no tensor"
        raise CheckpointError(
            f"{str(path)!r} answers {kind}, such as the position of a class; batchcls needs a number for each class: "
            "export it without its last ArgMax"
        )
    if not any(output.name in node.output for node in model.graph.node):
        raise CheckpointError(f"{str(path)!r} answers with its own input; it is no classifier")
    return inputs[0]


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


def onnx_notes(path: Path, classifier: OnnxClassifier, preprocess: Preprocess) -> tuple[str, ...]:
    """What is worth knowing of an ONNX file that becomes an engine, a line each."""
    notes = []
    if (change := classifier.outputs.change) >= _SMALLEST_CHANGE:
        notes.append(f"the file's probabilities are made to sum to 1, which changes one by up to {change:.4f}")
    if not classifier.normalises:
        warning = input_warning(classifier.model, own_answer(path, classifier), preprocess.size_px, preprocess)
        notes += [warning] if warning else []
    return tuple(notes)


def own_answer(path: Path, classifier: OnnxClassifier) -> Callable[[NormalisedImages], Logits]:
    """How the file at ``path`` itself answers, as logits: of probabilities their logarithms."""
    return lambda images: classifier.outputs.logits(classifier.own(images))


def _layout(path: Path, shape: tuple[int | None, ...], asked: str) -> str:
    if 1 in (shape[1], shape[3]) and 3 not in (shape[1], shape[3]):
        raise CheckpointError(
            f"{str(path)!r} takes {shape}, one channel of grey, and batchcls feeds three of colour; export it with "
            "three, for example behind a first layer that turns R, G and B to grey as training did"
        )
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
