"""Weights that a library offers for its networks, fetched where the machine can."""

import torchvision
from torch import Tensor

from batchcls.errors import CheckpointError
from batchcls.networks.architectures import TIMM, timm_wrapper

_ELSEWHERE = "fetch that file elsewhere, and name it: --weights FILE"


def pretrained_tensors(architecture: str) -> dict[str, Tensor]:
    """A library's own weights of an architecture, downloaded unless this machine already has them.

    Raises:
        CheckpointError: If the library has no such weights, or they cannot be downloaded.
    """
    if architecture.startswith(TIMM):
        return dict(timm_wrapper().timm_weights(architecture.removeprefix(TIMM)))
    try:
        weights = torchvision.models.get_model_weights(architecture).DEFAULT
        return dict(weights.get_state_dict(progress=False, check_hash=True))
    except (ValueError, AttributeError) as error:
        raise CheckpointError(f"torchvision has no weights of {architecture!r}; train it from scratch") from error
    except (OSError, RuntimeError) as error:
        raise CheckpointError(
            f"torchvision's weights of {architecture!r} could not be fetched from {weights.url} ({error}); {_ELSEWHERE}"
        ) from error
