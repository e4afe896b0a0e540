"""An ONNX file's own answers, by ONNX Runtime: a runtime that no engine uses."""

from collections.abc import Callable
from pathlib import Path
from threading import Timer
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from google.protobuf.message import EncodeError
from onnxruntime.capi import onnxruntime_pybind11_state as states

from batchcls.errors import CheckpointError
from batchcls.records import NormalisedImages, Pixels, Preprocess

Outputs = npt.NDArray[np.float32]
"""(N, numbers), as the file gives them: logits, probabilities, or something else."""

_FAILURES = (
    *(kind for kind in vars(states).values() if isinstance(kind, type) and issubclass(kind, Exception)),
    RuntimeError,
    ValueError,
    EncodeError,
)
"""ONNX Runtime's exceptions have no base of their own."""
_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}
_SHOWN_REASON = 400
ANSWER_TIMEOUT_S = 300.0
"""After which a network that answers some small images is taken to loop for ever."""


def runner(
    path: Path, model: onnx.ModelProto, layout: str, timeout_s: float = ANSWER_TIMEOUT_S
) -> Callable[[NormalisedImages], Outputs]:
    """How ``model``, read from ``path``, answers: one image at a time, whatever batch it was exported for.

    Args:
        layout: ``NCHW`` or ``NHWC``, of its input; one of uint8 is given 0..255.
        timeout_s: Seconds for the images of one call, some tens at most.

    Raises:
        CheckpointError: Also when called: If ONNX Runtime cannot run it, it answers with more than one axis, or not in
            time.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC  # quantised parts stay exact
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    except _FAILURES as error:
        raise _failure(path, error) from error
    (given,) = session.get_inputs()
    kind, name = _TYPES[given.type], given.name
    batch = given.shape[0] if isinstance(given.shape[0], int) and given.shape[0] > 0 else 1

    def answer(images: NormalisedImages) -> Outputs:
        run = ort.RunOptions()
        watchdog = Timer(timeout_s, setattr, (run, "terminate", True))
        watchdog.daemon = True
        watchdog.start()
        try:
            values = [
                session.run(None, {name: np.repeat(image[None], batch, 0)}, run)[0]
                for image in as_fed(images, layout, kind)
            ]
        except _FAILURES as error:
            if run.terminate:
                told = (
                    f"{str(path)!r} has not answered {len(images)} images in {timeout_s:g} s; export it without loops"
                )
                raise CheckpointError(told) from error
            raise _failure(path, error) from error
        finally:
            watchdog.cancel()
        return np.stack([_of_one(path, value, batch) for value in values])

    return answer


def normalised(pixels: Pixels, preprocess: Preprocess, *, plain: bool = False) -> NormalisedImages:
    """(N, H, W, 3) uint8 as a network is fed them; ``plain``: on the scale 0 to 1, whatever ``preprocess`` says."""
    images = np.asarray(pixels.transpose(0, 3, 1, 2) / np.float32(255), np.float32)
    if plain:
        return images
    mean, std = np.asarray(preprocess.mean, np.float32), np.asarray(preprocess.std, np.float32)
    return np.asarray((images - mean[:, None, None]) / std[:, None, None], np.float32)


def as_fed(images: NormalisedImages, layout: str, kind: npt.DTypeLike) -> npt.NDArray[Any]:
    """Normalised images as a network's input takes them; one of uint8, those on the scale 0 to 1 as 0 to 255."""
    ordered = images.transpose((0, 1, 2, 3) if layout == "NCHW" else (0, 2, 3, 1))
    if kind == np.uint8:
        ordered = np.clip(np.rint(ordered * 255), 0, 255)
    with np.errstate(over="ignore"):  # of half precision
        return np.ascontiguousarray(ordered, kind)


def _of_one(path: Path, value: npt.NDArray[np.float32], batch: int) -> Outputs:
    """The numbers of the first image."""
    of_one = value[0] if batch > 1 and value.ndim and len(value) == batch else value
    if sum(side > 1 for side in of_one.shape) > 1 or not of_one.size:
        raise CheckpointError(
            f"{str(path)!r} answers an image with values of shape {of_one.shape}; a classifier answers with one number "
            "for each class: export it with its last pooling and flattening"
        )
    return of_one.reshape(-1).astype(np.float32)


def _failure(path: Path, error: Exception) -> CheckpointError:
    reason = " ".join(str(error).split())
    return CheckpointError(f"ONNX Runtime cannot run {str(path)!r}: {reason[-_SHOWN_REASON:]}")
