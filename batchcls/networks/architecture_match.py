"""How the tensors of a trained file fit an architecture, with any number of classes and with other heads."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from batchcls.errors import CheckpointError
from batchcls.networks.architectures import TIMM, empty_network
from batchcls.networks.heads import Head

_CLASSES = 1000
"""Number of classes of the network whose tensors are compared."""
_MOST_NAMED = 4
"""Largest number of tensors that an error names."""
_Shapes = dict[str, tuple[int, ...]]


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
        expected, last_layer = _expected_shapes(architecture)
        prefix = _prefix(expected, tensors)
        named = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        present = {name: tuple(tensor.shape) for name, tensor in named.items()}
        in_channels = 1 if _takes_gray(expected, present) else 3
        if in_channels == 1:
            expected = {name: _gray(shape) for name, shape in expected.items()}
        classes = next((present[name][0] for name in last_layer if _same_but_classes(name, present, expected)), 0)
        head = None if classes else _head(expected, last_layer, present, torchvision=not architecture.startswith(TIMM))
        if head is not None:
            expected = {name: shape for name, shape in expected.items() if not name.startswith(f"{head.place}.")}
            with torch.device("meta"):
                module = head.module()
            expected |= {f"{head.place}.{name}": tuple(item.shape) for name, item in module.state_dict().items()}
        else:
            expected |= {name: (classes, *expected[name][1:]) for name in last_layer if classes}
        fitting = {name for name, shape in present.items() if expected.get(name) == shape}
        return cls(
            architecture=architecture,
            classes=head.classes if head else classes,
            head=head,
            in_channels=in_channels,
            tensors={name: named[name].float() for name in fitting},
            missing=tuple(name for name in expected if name not in fitting and not name.endswith(_COUNTER)),
            unexpected=tuple(name for name in present if name not in fitting),
            ignored=tuple(name for name in tensors if not name.startswith(prefix)),
            last_layer=last_layer[0].rpartition(".")[0],
        )

    @property
    def fits(self) -> bool:
        """Whether the file holds all tensors of the architecture, and no others under the same prefix."""
        return not self.missing and not self.unexpected

    def misfit(self) -> str:
        """The text for an error: which tensors do not fit."""
        lacks = f"{len(self.missing)} of its tensors are missing or of another shape{_first_names(self.missing)}"
        return f"{lacks}, {len(self.unexpected)} are unexpected{_first_names(self.unexpected)}"


_COUNTER = "num_batches_tracked"


def _expected_shapes(architecture: str) -> tuple[_Shapes, list[str]]:
    """Shapes of an architecture's tensors by name, and the names of those whose first axis is the classes."""
    shapes, others = (
        {name: tuple(tensor.shape) for name, tensor in empty_network(architecture, classes).state_dict().items()}
        for classes in (_CLASSES, _CLASSES + 1)
    )
    return shapes, [name for name, shape in shapes.items() if others[name] != shape]


def _prefix(expected: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Tensor]) -> str:
    """The prefix, such as ``module.`` or ``model.net.``, that the network's tensors have in a file."""
    first = next(name for name in expected)
    prefixes = {name.removesuffix(first) for name in tensors if name == first or name.endswith("." + first)}
    hits = {prefix: sum(prefix + name in tensors for name in expected) for prefix in prefixes or {""}}
    best = max(hits, key=lambda prefix: hits[prefix])
    rivals = sorted(prefix for prefix in hits if hits[prefix] == hits[best])
    if len(rivals) > 1 and hits[best] > len(expected) / 2:
        raise CheckpointError(f"the file holds several networks, under {rivals}; choose one with --state-dict")
    return best


def _takes_gray(expected: _Shapes, present: _Shapes) -> bool:
    """Whether a tensor that sees three channels in ``expected`` sees one in ``present``."""
    return any(_gray(shape) != shape and present.get(name) == _gray(shape) for name, shape in expected.items())


def _gray(shape: tuple[int, ...]) -> tuple[int, ...]:
    """``shape`` with one input channel in place of three, if it is that of a convolution that sees an image."""
    return (shape[0], 1, *shape[2:]) if len(shape) == 4 and shape[1] == 3 else shape


def _same_but_classes(name: str, present: _Shapes, expected: _Shapes) -> bool:
    return name in present and len(present[name]) > 0 and present[name][1:] == expected[name][1:]


def _head(expected: _Shapes, last_layer: list[str], present: _Shapes, *, torchvision: bool) -> Head | None:
    """The layers of a file that replace an architecture's last Linear, or all Linear layers of its classifier."""
    linear = next((name.removesuffix(".weight") for name in last_layer if len(expected[name]) == 2), "")
    places = [linear] if linear else []
    container = linear.rpartition(".")[0]
    if torchvision and container and all(len(shape) < 3 for shape in _below(container, expected).values()):
        weights = [name for name, shape in _below(container, expected).items() if name.endswith("weight")]
        places += [container] * all(len(expected[name]) == 2 for name in weights)
    for place in places:
        features = next(shape[1] for shape in _below(place, expected).values() if len(shape) == 2)
        head = Head.read(place, present)
        if head is not None and head.features == features:
            return head
    return None


def _below(place: str, shapes: _Shapes) -> _Shapes:
    return {name: shape for name, shape in shapes.items() if name.startswith(f"{place}.")}


def _first_names(names: tuple[str, ...]) -> str:
    return f" ({', '.join(names[:_MOST_NAMED])}{', ...' if len(names) > _MOST_NAMED else ''})" if names else ""
