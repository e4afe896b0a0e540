"""Run an ONNX file as it is, by ONNX Runtime, which no engine uses: the reference for an ONNX classifier."""

import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Timer
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from google.protobuf.message import EncodeError
from onnxruntime.capi import onnxruntime_pybind11_state as states

from batchcls.errors import CheckpointError, temporary_files
from batchcls.networks.preprocess import Preprocess
from batchcls.records import NormalizedImages, Pixels

Outputs = npt.NDArray[np.float32]
"""(N, numbers) float32, as the file answers: logits, probabilities, or something else."""

_FAILURES = (
    *(kind for kind in vars(states).values() if isinstance(kind, type) and issubclass(kind, Exception)),
    RuntimeError,
    ValueError,
    EncodeError,
)
"""Exceptions that ONNX Runtime raises, which share no base class of their own."""
_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}
_LONGEST_REASON = 400
"""Characters of ONNX Runtime's reason that an error repeats."""
ANSWER_TIMEOUT_S = 300.0
"""Seconds after which a network that has not answered a few images is taken to loop for ever."""


def onnx_runner(
    path: Path, model: onnx.ModelProto, layout: str, timeout_s: float = ANSWER_TIMEOUT_S
) -> Callable[[NormalizedImages], Outputs]:
    """A function that answers images by ``model``, one at a time, whatever batch the model was exported for.

    Args:
        path: The file that ``model`` was read from, for errors.
        layout: ``NCHW`` or ``NHWC``, of the model's input.
        timeout_s: Seconds for the images of one call; a call takes some tens of images at most.

    Raises:
        CheckpointError: If ONNX Runtime cannot run the model. The function raises it as well, also if an image is
            answered with more than one axis, or not in time.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC  # int8 parts stay exact
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    except _FAILURES as error:
        raise _failure(path, error) from error
    (network_input,) = session.get_inputs()
    dtype, name = _TYPES[network_input.type], network_input.name
    fixed = network_input.shape[0]
    batch = fixed if isinstance(fixed, int) and fixed > 0 else 1

    def answer(images: NormalizedImages) -> Outputs:
        run = ort.RunOptions()
        watchdog = Timer(timeout_s, setattr, (run, "terminate", True))
        watchdog.daemon = True
        watchdog.start()
        try:
            values = [
                session.run(None, {name: np.repeat(image[None], batch, 0)}, run)[0]
                for image in as_network_input(images, layout, dtype)
            ]
        except _FAILURES as error:
            if run.terminate:
                raise CheckpointError(
                    f"{str(path)!r} has not answered {len(images)} images in {timeout_s:g} s; export it without loops"
                ) from error
            raise _failure(path, error) from error
        finally:
            watchdog.cancel()
        return np.stack([_first_answer(path, value, batch) for value in values])

    return answer


def fold_constants(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of ``model`` in which what is computed from constants alone has become constants.

    Raises:
        CheckpointError: If ONNX Runtime cannot run the model.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with temporary_files(), TemporaryDirectory() as folder:
        options.optimized_model_filepath = os.path.join(folder, "folded.onnx")
        try:
            ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        except _FAILURES as error:
            raise _failure(Path("the model"), error) from error
        folded = onnx.load(options.optimized_model_filepath)
    domains = {node.domain for node in folded.graph.node}
    imports = [item for item in folded.opset_import if item.domain in domains]
    del folded.opset_import[:]
    folded.opset_import.extend(imports)
    return folded


def normalize(pixels: Pixels, preprocess: Preprocess, *, plain: bool = False) -> NormalizedImages:
    """(N, 3, H, W) float32, in gray (N, 1, H, W), normalized by ``preprocess``, of (N, H, W, 3) uint8 RGB.

    Args:
        plain: Pixels on the scale 0 to 1 instead, whatever mean and std ``preprocess`` has.
    """
    images = np.asarray(preprocess.ordered(pixels).transpose(0, 3, 1, 2) / np.float32(255), np.float32)
    if plain:
        return images
    mean, std = np.asarray(preprocess.mean, np.float32), np.asarray(preprocess.std, np.float32)
    return np.asarray((images - mean[:, None, None]) / std[:, None, None], np.float32)


def as_network_input(images: NormalizedImages, layout: str, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Images in a network's own layout and type.

    Args:
        images: (N, C, H, W) float32, normalized; on the scale 0 to 1 for a network that takes uint8, which is given
            0 to 255.
        layout: ``NCHW`` or ``NHWC``.
    """
    ordered = images.transpose((0, 1, 2, 3) if layout == "NCHW" else (0, 2, 3, 1))
    if dtype == np.uint8:
        ordered = np.clip(np.rint(ordered * 255), 0, 255)
    with np.errstate(over="ignore"):  # in half precision
        return np.ascontiguousarray(ordered, dtype)


def _first_answer(path: Path, value: npt.NDArray[np.float32], batch: int) -> Outputs:
    """The numbers, (numbers,) float32, that the first image of a batch is answered with."""
    answer = value[0] if batch > 1 and value.ndim and len(value) == batch else value
    if sum(side > 1 for side in answer.shape) > 1 or not answer.size:
        raise CheckpointError(
            f"{str(path)!r} answers an image with values of shape {answer.shape}; a classifier answers with one number "
            "for each class: export it with its last pooling and flattening"
        )
    return answer.reshape(-1).astype(np.float32)


def _failure(path: Path, error: Exception) -> CheckpointError:
    reason = " ".join(str(error).split())
    return CheckpointError(f"ONNX Runtime cannot run {str(path)!r}: {reason[-_LONGEST_REASON:]}")
