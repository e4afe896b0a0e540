"""Make an ONNX classifier answer logits, and prove on images of many kinds that its probabilities stay the same."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import onnx

from batchcls.building.onnx.free_batch import FreedNetwork, exported_batch, with_free_batch
from batchcls.building.onnx.logits_edits import closing_operators, with_logits_output, without_softmax
from batchcls.building.onnx.output_kinds import OutputFormat, UnclearOutputsError, detect_output_format, softmax
from batchcls.building.onnx.session import Outputs, as_network_input, fold_constants, normalize, onnx_runner
from batchcls.engine.backends.openvino_core import CORE
from batchcls.engine.probes import draw_probes
from batchcls.errors import CheckpointError
from batchcls.networks.onnx_advice import export_advice
from batchcls.networks.preprocess import Preprocess
from batchcls.records import Logits, NormalizedImages

_LARGEST_DIFFERENCE = {"fp32": 1e-4, "fp16": 0.01}
"""Largest difference of a probability between a file and the same file answering logits, by weights' precision; both
answer one image at a time by the same runtime."""
_LARGEST_BATCH_DIFFERENCE, _LARGEST_QUANTIZED_BATCH_DIFFERENCE = 0.02, 0.3
"""Largest difference of a probability between an image alone and in a batch. Two runtimes compute the two
answers, and round quantized layers differently."""
_BATCHES = 4
"""Number of parts that the images are cut into; the first images of all parts make up the batch."""
_NOISE_IMAGES = 4
_AMPLITUDES = (0.0, 8.0, 64.0, 512.0)
"""Standard deviations of noise far beyond any image, on the scale of normalized pixels."""
_MOST_NAMED = 2
"""Operators that an error names before it only counts the others."""
_LONGEST_REASON = 400
"""Characters of a runtime's reason that an error repeats."""


@dataclass(frozen=True, slots=True)
class LogitsNetwork:
    """An ONNX classifier as its file has it, and edited to answer logits."""

    original: Callable[[NormalizedImages], Outputs]
    """The unedited file's answers to (N, C, H, W) float32 images."""
    output: OutputFormat
    """Meaning of the unedited file's outputs: logits or probabilities, and of how many numbers."""
    model: onnx.ModelProto
    """The edited network: it answers float32 ``logits``, (N, classes), with the unedited file's probabilities."""
    freed: tuple[str, ...] = ()
    """Operators whose constants held the batch size that the file was exported for, and hold it no more."""

    @classmethod
    def from_model(
        cls, path: Path, model: onnx.ModelProto, layout: str, images: NormalizedImages, declared: str, precision: str
    ) -> Self:
        """Edit ``model``, which was read from ``path``, and check the edited network on ``images``.

        Args:
            layout: ``NCHW`` or ``NHWC``, of the model's input.
            images: (N, C, H, W) float32, of many kinds; see `varied_images`.
            declared: ``logits``, ``probabilities``, or ``auto``: detected from the answers.
            precision: ``fp32`` or ``fp16``, of the model's weights.

        Raises:
            CheckpointError: If the model cannot be run, its answers are unclear, or an image is answered otherwise in
                a batch than alone.
        """
        original = onnx_runner(path, model, layout)
        values = original(images)
        try:
            extremes = original(_extreme_inputs(images))
            output = detect_output_format(values, extremes, closing_operators(model.graph), declared)
        except UnclearOutputsError as error:
            raise CheckpointError(f"{str(path)!r} is no classifier that batchcls can use: {error}") from error
        exact = softmax(output.logits(values))
        for edit in (without_softmax, with_logits_output):
            edited = edit(model, output)
            if edited is not None and _agrees(path, edited, layout, images, exact, precision):
                break
        else:
            raise CheckpointError(
                f"{str(path)!r} answers otherwise once its outputs are made logits; export it with logits"
            )
        reason = _batch_failure(edited, layout, images, exact)
        if reason is None:
            return cls(original, output, edited)
        for fold in (lambda model: model, fold_constants):
            with suppress(CheckpointError):  # the edit broke the network
                freed = with_free_batch(fold(edited))
                if (
                    freed.changed
                    and _agrees(path, freed.model, layout, images, exact, precision)
                    and _batch_failure(freed.model, layout, images, exact) is None
                ):
                    return cls(original, output, freed.model, freed.changed)
        reason = _batch_reason(model, with_free_batch(edited), reason)
        raise CheckpointError(f"{str(path)!r} {reason}; {_batch_advice(layout, images.shape)}")


def varied_images(size_px: tuple[int, int], preprocess: Preprocess, *, plain: bool) -> NormalizedImages:
    """Images of many kinds: drawn fields, noise, black, white and plain colors; (N, C, H, W) float32.

    Args:
        plain: Pixels on the scale 0 to 1 instead of normalized by ``preprocess``.
    """
    noise = np.random.RandomState(7).randint(0, 256, (_NOISE_IMAGES, *size_px, 3)).astype(np.uint8)
    colors = np.array([[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    flat = np.broadcast_to(colors[:, None, None], (len(colors), *size_px, 3))
    return normalize(np.concatenate([draw_probes(size_px), noise, flat]), preprocess, plain=plain)


def _extreme_inputs(images: NormalizedImages) -> NormalizedImages:
    """Noise of the shape of ``images``, far beyond any image; a network that takes bytes is given it clipped."""
    noise = np.random.RandomState(8).normal(0, 1, (len(_AMPLITUDES), *images.shape[1:]))
    return np.asarray(noise * np.reshape(_AMPLITUDES, (-1, 1, 1, 1)), np.float32)


def _agrees(
    path: Path, model: onnx.ModelProto, layout: str, images: NormalizedImages, exact: Logits, precision: str
) -> bool:
    """Whether an edited network answers ``images``, one at a time, with the probabilities ``exact``."""
    probabilities = softmax(onnx_runner(path, model, layout)(images))
    if probabilities.shape != exact.shape:
        return False
    return bool(np.abs(probabilities - exact).max() <= _LARGEST_DIFFERENCE[precision])


def _batch_failure(model: onnx.ModelProto, layout: str, images: NormalizedImages, alone: Logits) -> str | None:
    """How OpenVINO, which runs engines, answers a batch otherwise than single images; None if it does not.

    Args:
        alone: Probabilities of ``images``, each answered by itself.
    """
    members = slice(None, None, len(images) // _BATCHES)
    expected = alone[members]
    try:
        network = CORE.read_model(model.SerializeToString())
        batch = as_network_input(images[members], layout, network.input(0).element_type.to_dtype())
        network.reshape(batch.shape)
        together = np.asarray(CORE.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(batch)[0])
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        return f"cannot be run by OpenVINO on several images at once: {reason[-_LONGEST_REASON:]}"
    if together.shape != expected.shape:
        return (
            f"has no fixed number of classes, or no batch axis: {len(expected)} images at once are answered with "
            f"values of shape {together.shape}"
        )
    quantized = any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    allowed = _LARGEST_QUANTIZED_BATCH_DIFFERENCE if quantized else _LARGEST_BATCH_DIFFERENCE
    if not np.abs(softmax(together) - expected).max() <= allowed:
        return "answers several images at once otherwise than one by one"
    return None


def _batch_reason(model: onnx.ModelProto, freed: FreedNetwork, reason: str) -> str:
    """Why a network cannot be given batches of any size, as the middle of an error."""
    batch, count = exported_batch(model), len(freed.changed)
    if batch and count:
        names = ", ".join(freed.changed[:_MOST_NAMED]) + (f" and {count - _MOST_NAMED:,} more" * (count > _MOST_NAMED))
        return f"was exported for batches of {batch}, which is held by {names}"
    return f"was exported for batches of {batch}: it {reason}" if batch else reason


def _batch_advice(layout: str, shape: tuple[int, ...]) -> str:
    """How to export a network with a free batch, as the end of an error; ``shape`` is of its images, (N, C, H, W)."""
    _, channels, height, width = shape
    if layout == "NCHW":
        return export_advice((height, width), channels)
    spec = f"tf.TensorSpec((None, {height}, {width}, {channels}))"
    return f"export it with a free batch axis: tf2onnx with an input of {spec}"
