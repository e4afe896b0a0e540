"""Make the network of a Keras file, with its weights, as a PyTorch module."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from batchcls.building.keras.contents import KerasFile
from batchcls.building.keras.library import keras_library
from batchcls.building.library_errors import translated
from batchcls.errors import CheckpointError

_LARGEST_EXPANSION = 4
_SMALL_BYTES = 1 << 20


class KerasNetwork(nn.Module):
    """A network of Keras that takes images in PyTorch's order of axes: (N, 3, H, W) in, the file's own outputs out.

    Args:
        model: The Keras model, with one input of images and one output.
        layout: ``NCHW`` or ``NHWC``, of the model's own input.
    """

    def __init__(self, model: Any, layout: str) -> None:
        super().__init__()
        self.model = model
        self.layout = layout

    def forward(self, images: Tensor) -> Tensor:
        ordered = images if self.layout == "NCHW" else images.permute(0, 2, 3, 1)
        outputs = self.model(ordered, training=False)
        while not isinstance(outputs, Tensor):  # a list or a mapping of one
            (outputs,) = outputs.values() if isinstance(outputs, Mapping) else outputs
        return outputs


def load_keras_network(path: Path, contents: KerasFile) -> Any:
    """The Keras model of a file, with the file's weights, on the CPU and in float32.

    Args:
        path: The file that ``contents`` were read from, for errors.

    Raises:
        CheckpointError: If Keras cannot make the network, or the weights are of another one.
        BatchclsError: If Keras is not installed.
    """
    keras = keras_library()
    # In a StatelessScope variables have shapes and no memory yet, so that a small file cannot take much.
    stateless = keras.StatelessScope(initialize_variables=False)
    with translated(path, "cannot be made by Keras", reason_of=_reason), keras.device("cpu"), stateless:
        model = keras.saving.deserialize_keras_object(contents.configuration, safe_mode=True)
        _check_size(path, model, contents.weights)
        stateless.initialize_variables = True
    with translated(path, "holds weights that do not fit its network", reason_of=_reason), keras.device("cpu"):
        model.load_weights(contents.weights)
        model.inputs, model.outputs  # noqa: B018  # raises an error if the network has no shapes
    if not all(bool(torch.isfinite(variable.value).all()) for variable in model.weights):
        raise CheckpointError(
            f"{str(path)!r} holds weights that are NaN or infinite; its training went astray: build an earlier one"
        )
    model.trainable = False
    return model


def _check_size(path: Path, model: Any, weights: Path) -> None:
    """Refuse a network that would take far more memory than the file of its weights."""
    claimed = sum(4 * torch.Size(variable.shape).numel() for variable in model.variables)
    size_bytes = weights.stat().st_size
    if claimed > _LARGEST_EXPANSION * size_bytes + _SMALL_BYTES:
        raise CheckpointError(f"{str(path)!r} has {size_bytes:,} bytes of weights for a network of {claimed:,}")


def _reason(error: Exception) -> str:
    """The end of an exception's text, before which Keras puts the whole configuration."""
    return str(error).rpartition("Exception encountered: ")[2]
