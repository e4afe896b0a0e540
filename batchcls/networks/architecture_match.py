"""How the tensors of a trained file fit an architecture, with any number of classes and with other heads."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from batchcls.errors import CheckpointError
from batchcls.networks.architecture_index import CONSTANT, Shapes
from batchcls.networks.architectures import TIMM, empty_network
from batchcls.networks.heads import Head

_CLASSES = 10007
"""Number of classes of the network whose tensors are compared: a prime that is no width of any network."""
_MOST_NAMED = 4
"""Largest number of tensors that an error names."""


@dataclass(frozen=True, slots=True)
class ArchitectureMatch:
    """How well a file's tensors fit an architecture."""

    architecture: str
    classes: int
    """Number of logits; 0 if the file has no last layer that fits."""
    head: Head | None
    """Layers that replace a part of the network; None: the network as its library makes it."""
    in_channels: int
    """Channels of the input: 3, or 1."""
    tensors: Mapping[str, Tensor]
    """Fitting tensors as float32, under the network's names."""
    missing: tuple[str, ...]
    """Names of the architecture's tensors that are not in the file, or have another shape there."""
    unexpected: tuple[str, ...]
    """Names of the file's tensors that are not in the architecture, or have another shape there."""
    ignored: tuple[str, ...]
    """Names of the file's tensors without the prefix of the network."""
    last_layer: str
    """Name of the architecture's last layer."""

    @classmethod
    def of(cls, architecture: str, tensors: Mapping[str, Tensor]) -> Self:
        """How well the tensors of a file, by name, fit an architecture.

        Raises:
            CheckpointError: If the file holds several networks.
        """
        expected = _expected_shapes(architecture)
        prefix = _prefix(expected, tensors)
        named = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        present = {name: tuple(tensor.shape) for name, tensor in named.items()}
        in_channels = 1 if takes_gray(expected, present) else 3
        if in_channels == 1:
            expected = {name: gray(shape) for name, shape in expected.items()}
        last_layer = next(name for name, shape in expected.items() if shape[:1] == (0,)).rpartition(".")[0]
        classes, head = read_head(expected, present, torchvision=not architecture.startswith(TIMM))
        expected = _with_head(expected, classes, head)
        fitting = {name for name, shape in present.items() if expected.get(name) == shape}
        return cls(
            architecture=architecture,
            classes=classes,
            head=head,
            in_channels=in_channels,
            tensors={name: named[name].float() for name in fitting},
            missing=tuple(name for name in expected if name not in fitting and not CONSTANT.search(name)),
            unexpected=tuple(name for name in present if name not in fitting and not CONSTANT.search(name)),
            ignored=tuple(name for name in tensors if not name.startswith(prefix)),
            last_layer=last_layer,
        )

    @property
    def fits(self) -> bool:
        """Whether the file holds all tensors of the architecture, and no others under the same prefix."""
        return not self.missing and not self.unexpected

    def misfit(self) -> str:
        """The text for an error: which tensors do not fit."""
        lacks = f"{len(self.missing)} of its tensors are missing or of another shape{_first_names(self.missing)}"
        return f"{lacks}, {len(self.unexpected)} are unexpected{_first_names(self.unexpected)}"


def read_head(expected: Shapes, present: Shapes, *, torchvision: bool) -> tuple[int, Head | None]:
    """The number of classes of a file, and the layers that replace a part of an architecture's head.

    Args:
        expected: Shapes of the architecture's tensors; an axis of length 0 has the length of the classes.
        present: Shapes of the file's tensors.
        torchvision: Whether the architecture is torchvision's, whose whole classifier may have been replaced.

    Returns:
        The number of classes, 0 if the file has no head that fits; and the layers, None if the head is as expected.
    """
    last_layer = [name for name, shape in expected.items() if shape[:1] == (0,)]
    as_made = [name for name in last_layer if name in present and present[name][1:] == expected[name][1:]]
    classes = next((present[name][0] for name in as_made if present[name]), 0)
    containers = {name.partition(".")[0] for name in last_layer}
    expected, present = (
        {name: shapes[name] for name in _names_in(containers, shapes)} for shapes in (expected, present)
    )
    if as_made and expected.keys() == present.keys():
        return classes, None
    linear = next((name.removesuffix(".weight") for name in last_layer if len(expected[name]) == 2), "")
    places = [linear] if linear else []
    container = linear.rpartition(".")[0]
    weights = [expected[name] for name in _names_in({container}, expected) if name.endswith("weight")]
    if torchvision and container and all(len(shape) == 2 for shape in weights):
        places.append(container)
    for place in places:
        head = Head.read(place, present)
        features = next(shape[1] for name in _names_in({place}, expected) if len(shape := expected[name]) == 2)
        others = (shapes.keys() - set(_names_in({place}, shapes)) for shapes in (expected, present))
        if head is not None and head.features == features and next(others) == next(others):
            return head.classes, head
    return classes, None


def _names_in(places: Collection[str], shapes: Shapes) -> list[str]:
    """Names of the tensors of modules, and of those within them, that a network does not compute by itself."""
    starts = tuple(f"{place}." for place in places)
    return [name for name in shapes if name.startswith(starts) and not CONSTANT.search(name)]


def takes_gray(expected: Shapes, present: Shapes) -> bool:
    """Whether a tensor that sees three channels in ``expected`` sees one in ``present``."""
    return any(gray(shape) != shape and present.get(name) == gray(shape) for name, shape in expected.items())


def gray(shape: tuple[int, ...]) -> tuple[int, ...]:
    """``shape`` with one input channel in place of three, if it is that of a convolution that sees an image."""
    return (shape[0], 1, *shape[2:]) if len(shape) == 4 and shape[1] == 3 else shape


def colored(shape: tuple[int, ...]) -> tuple[int, ...]:
    """``shape`` with three input channels in place of one, if it is that of a convolution."""
    return (shape[0], 3, *shape[2:]) if len(shape) == 4 and shape[1] == 1 else shape


def _expected_shapes(architecture: str) -> dict[str, tuple[int, ...]]:
    """Shapes of an architecture's tensors by name; an axis of length 0 has the length of the classes."""
    tensors = empty_network(architecture, _CLASSES).state_dict()
    return {
        name: tuple(0 if length == _CLASSES else length for length in tensor.shape) for name, tensor in tensors.items()
    }


def _with_head(expected: Shapes, classes: int, head: Head | None) -> dict[str, tuple[int, ...]]:
    """``expected`` with the shapes of a head, and of a number of classes."""
    sized = {name: tuple(length or classes for length in shape) for name, shape in expected.items()}
    if head is None:
        return sized
    with torch.device("meta"):
        tensors = head.module().state_dict(prefix=f"{head.place}.")
    others = {name: shape for name, shape in sized.items() if not name.startswith(f"{head.place}.")}
    return others | {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _prefix(expected: Shapes, tensors: Mapping[str, Tensor]) -> str:
    """The prefix, such as ``module.`` or ``model.net.``, that the network's tensors have in a file."""
    first = next(name for name in expected)
    prefixes = {name.removesuffix(first) for name in tensors if name == first or name.endswith("." + first)}
    hits = {prefix: sum(prefix + name in tensors for name in expected) for prefix in prefixes or {""}}
    best = max(hits, key=lambda prefix: hits[prefix])
    rivals = sorted(prefix for prefix in hits if hits[prefix] == hits[best])
    if len(rivals) > 1 and hits[best] > len(expected) / 2:
        raise CheckpointError(f"the file holds several networks, under {rivals}; choose one with --state-dict")
    return best


def _first_names(names: tuple[str, ...]) -> str:
    return f" ({', '.join(names[:_MOST_NAMED])}{', ...' if len(names) > _MOST_NAMED else ''})" if names else ""
