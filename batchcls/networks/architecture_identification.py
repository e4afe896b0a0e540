"""Find the architecture whose tensors a file holds."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from batchcls.errors import CheckpointError
from batchcls.networks.architecture_match import ArchitectureMatch
from batchcls.networks.onnx_advice import export_advice
from batchcls.networks.tensors import TrainedTensors

_TEN = (
    "googlenet",
    "inception_v3",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "vgg16",
    "vgg16_bn",
    "alexnet",
    "mobilenet_v2",
    "cnn",
)


@dataclass(frozen=True, slots=True)
class Identification:
    """The architecture of a file, and what decided it."""

    architecture: str
    notes: tuple[str, ...] = ()


def identify(path: Path, trained: TrainedTensors) -> Identification:
    for name in _TEN:
        if ArchitectureMatch.of(name, trained.tensors).fits:
            return Identification(name)
    raise CheckpointError(f"{str(path)!r} holds no known network; {export_advice()}")


def closest_architectures(tensors: Mapping[str, Tensor]) -> list[str]:
    return []
