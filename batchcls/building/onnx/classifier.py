"""Read an ONNX classifier of any origin: check it, and make it answer logits."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx.compose
from google.protobuf.message import DecodeError
from onnx import TensorProto

from batchcls.building.onnx.logits_conversion import LogitsNetwork, varied_images
from batchcls.building.onnx.normalization import normalization_warning
from batchcls.building.onnx.output_kinds import OutputFormat
from batchcls.building.onnx.sandbox import check_runs
from batchcls.building.onnx.session import Outputs
from batchcls.building.onnx.static_checks import check_external_data, check_loops
from batchcls.errors import CheckpointError
from batchcls.networks.preprocess import LARGEST_SIDE_PX, Channels, Preprocess
from batchcls.records import Logits, NormalizedImages
from batchcls.storage.regular_file import check_regular

_FLOATS: dict[int, str] = {TensorProto.FLOAT: "fp32", TensorProto.FLOAT16: "fp16"}
"""Types of the inputs and weights that are supported, by precision."""
_OUTPUT_TYPES = (*_FLOATS, TensorProto.DOUBLE, TensorProto.BFLOAT16, TensorProto.UNDEFINED)
_SMALLEST_NOTED_CHANGE = 0.0005
"""Smallest change of a probability that a note reports."""
_OLDEST_OPERATOR_SET = 7
"""Oldest operator set that ONNX Runtime knows."""
_LARGEST_BYTES = 2 << 30
"""Bytes that protobuf can hold in one message."""


@dataclass(frozen=True, slots=True)
class OnnxClassifier:
    """An ONNX file's network, and the images that it takes."""

    model: onnx.ModelProto
    """The network, edited to answer float32 ``logits``, (N, classes)."""
    layout: str
    """``NCHW`` or ``NHWC``, of the network's input."""
    size_px: tuple[int, int] | None
    """Height and width of the input; None if they are free."""
    precision: str
    """``fp32`` or ``fp16``, of the network's weights."""
    output: OutputFormat
    """Meaning of the unedited file's outputs: logits or probabilities, and of how many numbers."""
    takes_bytes: bool
    """Whether the input is uint8, which the network then normalizes by itself."""
    channels: Channels
    """Channels of the input."""
    original: Callable[[NormalizedImages], Outputs]
    """The unedited file's answers to (N, C, H, W) float32 images."""
    freed: tuple[str, ...] = ()
    """Operators whose constants held the batch size that the file was exported for, and hold it no more."""

    @property
    def classes(self) -> int:
        """Number of classes, at least two."""
        return self.output.classes

    def own_logits(self, images: NormalizedImages) -> Logits:
        """The unedited file's answers to (N, C, H, W) float32 images, as (N, classes) float32 logits."""
        return self.output.logits(self.original(images))


def load_classifier(
    path: Path, layout: str = "auto", preprocess: Preprocess | None = None, outputs: str = "auto"
) -> OnnxClassifier:
    """The ONNX classifier in the file at ``path``, with the parameters of `classifier_from_model`."""
    return classifier_from_model(path, read_model(path), layout, preprocess, outputs)


def classifier_from_model(
    path: Path,
    model: onnx.ModelProto,
    layout: str = "auto",
    preprocess: Preprocess | None = None,
    outputs: str = "auto",
) -> OnnxClassifier:
    """An ONNX classifier, checked: one image input, and one output.

    Args:
        path: The file that ``model`` was read from, for errors.
        model: What `read_model` read.
        layout: ``NCHW``, ``NHWC``, or ``auto``: by the axis that has three channels, or one of gray.
        preprocess: Preprocessing of the images that the network is tested on; its size counts where the file's is
            free. None: the recipe's defaults.
        outputs: ``logits``, ``probabilities``, or ``auto``: detected from the answers to drawn images.

    Raises:
        CheckpointError: If the file is damaged, or is no such classifier.
    """
    preprocess = preprocess or Preprocess(channels="L" if takes_gray(path, model) else "RGB")
    image_input = _image_input(path, model)
    element, shape = image_input.type.tensor_type.elem_type, _shape(image_input)
    layout, height, width = _layout(path, shape, layout, preprocess)
    size_px = (height, width) if height and width else None
    if size_px and max(size_px) > LARGEST_SIDE_PX:
        raise CheckpointError(
            f"{str(path)!r} takes images of {height} x {width} pixels; {LARGEST_SIDE_PX} are the most"
        )
    weights_type = next((item.data_type for item in model.graph.initializer if item.data_type in _FLOATS), element)
    precision = _FLOATS.get(weights_type, "fp32")
    takes_bytes = element == TensorProto.UINT8
    images = varied_images(size_px or preprocess.size_px, preprocess, plain=takes_bytes)
    check_runs(path, model, layout, Preprocess(size_px or preprocess.size_px, channels=preprocess.channels))
    edited = LogitsNetwork.from_model(path, model, layout, images, outputs, precision)
    return OnnxClassifier(
        model=edited.model,
        layout=layout,
        size_px=size_px,
        precision=precision,
        output=edited.output,
        takes_bytes=takes_bytes,
        channels=preprocess.channels,
        original=edited.original,
        freed=edited.freed,
    )


def read_model(path: Path) -> onnx.ModelProto:
    """The model in the file at ``path``, checked, with every name under ``network/``.

    Raises:
        CheckpointError: If the file is damaged, or keeps data outside its folder.
    """
    try:
        check_regular(path)
        if path.stat().st_size > _LARGEST_BYTES:
            raise CheckpointError(f"{str(path)!r} is larger than ONNX allows in one file")
        model = onnx.load(path, load_external_data=False)
        _check_operator_set(path, model)
        check_loops(path, model)
        check_external_data(path.parent, model)
        onnx.load_external_data_for_model(model, os.fspath(path.parent))
        onnx.checker.check_model(model)
        return onnx.compose.add_prefix(model, "network/")  # so that the names of added nodes are free
    except (DecodeError, onnx.checker.ValidationError, ValueError, TypeError, OSError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(f"{str(path)!r} cannot be read as ONNX: {reason}") from error


def _check_operator_set(path: Path, model: onnx.ModelProto) -> None:
    """Refuse operator sets that the runtimes do not know."""
    latest = onnx.defs.onnx_opset_version()
    for item in model.opset_import:
        if item.domain in ("", "ai.onnx") and not _OLDEST_OPERATOR_SET <= item.version <= latest:
            raise CheckpointError(
                f"{str(path)!r} uses ONNX's operator set {item.version}, and batchcls reads {_OLDEST_OPERATOR_SET} to "
                f"{latest}; export it with opset_version=20"
            )


def _type_name(element: int) -> str:
    """Name of an ONNX element type."""
    known = TensorProto.DataType.values()
    return str(TensorProto.DataType.Name(element)) if element in known else f"an unknown type ({element})"


def _image_input(path: Path, model: onnx.ModelProto) -> onnx.ValueInfoProto:
    """The image input of a network that has one input and one output."""
    weights = {initializer.name for initializer in model.graph.initializer}
    inputs: list[onnx.ValueInfoProto] = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1 or len(model.graph.output) != 1:
        raise CheckpointError(
            f"{str(path)!r} has {len(inputs)} inputs and {len(model.graph.output)} outputs; "
            "a classifier has one each: export it again without the others"
        )
    (output,) = model.graph.output
    element = output.type.tensor_type.elem_type
    if not output.type.HasField("tensor_type") or element not in _OUTPUT_TYPES:
        kind = _type_name(element) if output.type.HasField("tensor_type") else "no tensor"
        raise CheckpointError(
            f"{str(path)!r} answers {kind}, such as the position of a class; batchcls needs a number for each class: "
            "export it without its last ArgMax"
        )
    if not any(output.name in node.output for node in model.graph.node):
        raise CheckpointError(f"{str(path)!r} answers with its own input; it is no classifier")
    element, shape = inputs[0].type.tensor_type.elem_type, _shape(inputs[0])
    if len(shape) != 4 or element not in (*_FLOATS, TensorProto.UINT8):
        kind = _type_name(element)
        raise CheckpointError(f"{str(path)!r} takes {kind} of shape {shape}; it must be float or uint8 images, rank 4")
    return inputs[0]


def onnx_notes(classifier: OnnxClassifier, preprocess: Preprocess) -> tuple[str, ...]:
    """Lines for the user on an ONNX file that becomes an engine."""
    notes = []
    if classifier.freed:
        notes.append(
            f"exported for batches of one size, which {len(classifier.freed)} of its operators held; any size is free "
            "now, and several images at once are answered as one by one"
        )
    if (change := classifier.output.change) >= _SMALLEST_NOTED_CHANGE:
        notes.append(f"the file's probabilities are made to sum to 1, which changes one by up to {change:.4f}")
    if not classifier.takes_bytes:
        warning = normalization_warning(classifier.model, classifier.own_logits, preprocess.size_px, preprocess)
        notes += [warning] if warning else []
    return tuple(notes)


def takes_gray(path: Path, model: onnx.ModelProto) -> bool:
    """Whether the image input of a model shows one channel, of gray, whatever its layout.

    Raises:
        CheckpointError: If there is no such input.
    """
    shape = _shape(_image_input(path, model))
    return 1 in (shape[1], shape[3]) and 3 not in (shape[1], shape[3])


def _layout(
    path: Path, shape: tuple[int | None, ...], wanted: str, preprocess: Preprocess
) -> tuple[str, int | None, int | None]:
    """``NCHW`` or ``NHWC``, as ``wanted`` or by the axis that holds the channels; and the input's height and width."""
    count, lengths = preprocess.channel_count, {"NCHW": shape[1], "NHWC": shape[3]}
    possible = {name: length for name, length in lengths.items() if length in (1, 3, None)}
    if not possible:
        raise CheckpointError(
            f"{str(path)!r} takes {shape}, neither three channels of color nor one of gray; batchcls feeds no others: "
            "export a network of these"
        )
    fitting = [name for name, length in possible.items() if length == count]
    fitting = fitting or [name for name, length in possible.items() if length is not None]
    layout = fitting[0] if wanted == "auto" and len(fitting) == 1 else wanted
    if layout not in possible:
        raise CheckpointError(
            f"{str(path)!r} takes {shape}, which does not show one axis of 3 channels for layout {wanted!r}; "
            'set layout = "NCHW" or "NHWC" in a recipe'
        )
    if possible[layout] not in (count, None):
        remedy = 'one channel of gray; set channels = "L" in' if count == 3 else "three channels; leave channels out of"
        raise CheckpointError(f"{str(path)!r} takes {shape}, {remedy} the recipe")
    height, width = shape[2:] if layout == "NCHW" else shape[1:3]
    return layout, height, width


def _shape(value: onnx.ValueInfoProto) -> tuple[int | None, ...]:
    """Length of each axis of a value; None where it is free."""
    sides = value.type.tensor_type.shape.dim
    return tuple(side.dim_value if side.HasField("dim_value") and side.dim_value > 0 else None for side in sides)
