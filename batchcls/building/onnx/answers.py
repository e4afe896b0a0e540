"""What an ONNX classifier answers to images of many kinds, and the same network answering logits."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import onnx
import openvino as ov

from batchcls.building.onnx.outputs import (
    Judgement,
    UnclearOutputsError,
    answering_logits,
    closing_operators,
    judged,
    softmax,
)
from batchcls.building.onnx.session import Outputs, as_fed, normalised, runner
from batchcls.engine.probes import probe_pixels
from batchcls.errors import CheckpointError
from batchcls.records import Logits, NormalisedImages, Preprocess

_LARGEST_DIFFERENCE = {"fp32": 1e-4, "fp16": 0.01}
"""Of a probability, between a file and the same file answering logits, one image at a time by the same runtime."""
_LARGEST_BATCH_DIFFERENCE, _QUANTISED = 0.02, 0.3
"""Of a probability, between images alone and in a batch, by two runtimes; which compute eight bits differently."""
_BATCH = 4
_NOISE = 4
_AMPLITUDES = (0.0, 8.0, 64.0, 512.0)
"""Standard deviations of inputs beyond those of any image, normalised."""
_SHOWN_REASON = 400


@dataclass(frozen=True, slots=True)
class Answers:
    """How a file answers, and its network made to answer logits."""

    own: Callable[[NormalisedImages], Outputs]
    """By the file as it is."""
    judgement: Judgement
    model: onnx.ModelProto
    """Answers float32 ``logits``, (N, classes), whose softmax is the file's own probabilities."""

    @classmethod
    def tried(
        cls, path: Path, model: onnx.ModelProto, layout: str, images: NormalisedImages, told: str, precision: str
    ) -> Self:
        """Judge by ``images``, of many kinds, what the network that was read from ``path`` answers.

        Args:
            layout: ``NCHW`` or ``NHWC``, of its input.
            told: ``logits``, ``probabilities``, or ``auto``: by the answers.
            precision: ``fp32`` or ``fp16``, of its weights.

        Raises:
            CheckpointError: If it cannot be run, answers unclearly, or otherwise in a batch than alone.
        """
        own = runner(path, model, layout)
        values = own(images)
        try:
            judgement = judged(values, own(_extremes(images)), closing_operators(model.graph), told)
        except UnclearOutputsError as error:
            raise CheckpointError(f"{str(path)!r} is no classifier that batchcls can use: {error}") from error
        exact = softmax(judgement.logits(values))
        for whole in (False, True):
            changed = answering_logits(model, judgement, whole=whole)
            if changed is None:
                continue
            ours = softmax(runner(path, changed, layout)(images))
            if ours.shape == exact.shape and np.abs(ours - exact).max() <= _LARGEST_DIFFERENCE[precision]:
                _check_batch(path, changed, layout, images, exact)
                return cls(own, judgement, changed)
        raise CheckpointError(
            f"{str(path)!r} answers otherwise once its outputs are made logits; export it with logits"
        )


def typical_images(size_px: tuple[int, int], preprocess: Preprocess, *, plain: bool) -> NormalisedImages:
    """Images of many kinds, normalised: drawn ones, noise, black, white and colours."""
    noise = np.random.RandomState(7).randint(0, 256, (_NOISE, *size_px, 3)).astype(np.uint8)
    colours = np.array([[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    flat = np.broadcast_to(colours[:, None, None], (len(colours), *size_px, 3))
    return normalised(np.concatenate([probe_pixels(size_px), noise, flat]), preprocess, plain=plain)


def _extremes(images: NormalisedImages) -> NormalisedImages:
    """Inputs far beyond those of any image, which a network that takes bytes is given within their range."""
    noise = np.random.RandomState(8).normal(0, 1, (len(_AMPLITUDES), *images.shape[1:]))
    return np.asarray(noise * np.reshape(_AMPLITUDES, (-1, 1, 1, 1)), np.float32)


def _check_batch(path: Path, model: onnx.ModelProto, layout: str, images: NormalisedImages, alone: Logits) -> None:
    """Refuse what answers several images at once otherwise than one by one, by the runtime of engines."""
    chosen = slice(None, None, len(images) // _BATCH)
    expected = alone[chosen]
    try:
        network = ov.Core().read_model(model.SerializeToString())
        batch = as_fed(images[chosen], layout, network.input(0).element_type.to_dtype())
        network.reshape(batch.shape)
        together = np.asarray(ov.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(batch)[0])
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"OpenVINO cannot run {str(path)!r} on several images at once: {reason[-_SHOWN_REASON:]}; "
            "export it with a free batch axis, and operators of ONNX's own"
        ) from error
    if together.shape != expected.shape:
        raise CheckpointError(
            f"the output of {str(path)!r} has no fixed number of classes, or no batch axis: {len(expected)} images at "
            f"once are answered with values of shape {together.shape}; export it with a free batch axis"
        )
    quantised = any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    allowed = _QUANTISED if quantised else _LARGEST_BATCH_DIFFERENCE
    if not np.abs(softmax(together) - expected).max() <= allowed:
        raise CheckpointError(
            f"{str(path)!r} answers several images at once otherwise than one by one; export it with a free batch axis"
        )
