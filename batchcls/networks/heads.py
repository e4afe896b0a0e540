"""Heads that replace a network's last layers, read from the names and shapes of a file's tensors."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, Self

from torch import nn

Kind = Literal["linear", "batch norm", "layer norm"]
Shapes = Mapping[str, Sequence[int]]
"""Shapes of tensors by name."""

_PARAMETERS = {
    "linear": ({"weight"}, {"weight", "bias"}),
    "batch norm": ({"weight", "bias", "running_mean", "running_var"},),
    "layer norm": ({"weight", "bias"},),
}
"""Names of the tensors that a layer of each kind may have."""
_COUNTER = "num_batches_tracked"


@dataclass(frozen=True, slots=True)
class HeadLayer:
    """A layer of a head that has weights."""

    name: str
    """Name within the head, such as ``1``; empty for a head that is this one layer."""
    kind: Kind
    features_in: int
    features_out: int
    has_bias: bool


@dataclass(frozen=True, slots=True)
class Head:
    """Layers in place of a module of a network: one Linear, or a Sequential whose last layer with weights is Linear."""

    place: str
    """Name of the module that the head replaces, such as ``fc`` or ``classifier``."""
    layers: tuple[HeadLayer, ...]
    """Layers with weights, in their order."""
    activations: tuple[int, ...] = ()
    """Positions in the Sequential at which a ReLU is assumed, for a file does not name layers without weights."""

    @property
    def classes(self) -> int:
        """Number of logits."""
        return self.layers[-1].features_out

    @property
    def features(self) -> int:
        """Number of values that the head takes."""
        return self.layers[0].features_in

    @classmethod
    def read(cls, place: str, shapes: Shapes) -> Self | None:
        """The head at ``place`` of a network with tensors of these shapes; None if it cannot be known from them.

        Between two Linear layers of a Sequential one activation is assumed where there is room for it, as the numbers
        of the layers tell. If there are two such places, before and after a normalization, the head cannot be known.
        """
        start = f"{place}."
        below: dict[str, dict[str, Sequence[int]]] = {}
        for name, shape in shapes.items():
            if name.startswith(start):
                layer, _, parameter = name.removeprefix(start).rpartition(".")
                below.setdefault(layer, {})[parameter] = shape
        layers = [_layer(name, parameters) for name, parameters in below.items()]
        known = [layer for layer in layers if layer is not None]
        if not known or len(known) < len(layers):
            return None
        if len(known) > 1:
            if not all(layer.name.isdigit() for layer in known):
                return None
            known.sort(key=lambda layer: int(layer.name))
        activations = _activations(known)
        if known[-1].kind != "linear" or not _connected(known) or activations is None:
            return None
        return cls(place, tuple(known), activations)

    def module(self) -> nn.Module:
        """The head with random weights, on the current default device; its tensors have the file's names."""
        if not self.layers[0].name:
            return _module(self.layers[0])
        modules = {layer.name: _module(layer) for layer in self.layers}
        if len(self.layers) == 1:
            return _nested(self.layers[0].name.split("."), modules[self.layers[0].name])
        modules |= {str(position): nn.ReLU() for position in self.activations}
        return nn.Sequential(OrderedDict(sorted(modules.items(), key=lambda item: int(item[0]))))

    def description(self) -> str:
        """The layers in words, such as ``Linear(512, 64), ReLU (assumed), Linear(64, 4)``."""
        parts = {layer.name: _described(layer) for layer in self.layers}
        parts |= {str(position): "ReLU (assumed)" for position in self.activations}
        return ", ".join(parts[name] for name in sorted(parts, key=lambda name: int(name) if name.isdigit() else 0))


def _layer(name: str, parameters: Shapes) -> HeadLayer | None:
    weight = tuple(parameters.get("weight", ()))
    names = {parameter for parameter in parameters if parameter != _COUNTER}
    kind: Kind = "linear" if len(weight) == 2 else "batch norm" if "running_mean" in names else "layer norm"
    if names not in _PARAMETERS[kind] or len(weight) not in (1, 2) or not all(weight):
        return None
    if any(tuple(parameters[parameter]) != weight[:1] for parameter in names - {"weight"}):
        return None
    return HeadLayer(name, kind, weight[-1], weight[0], "bias" in names)


def _connected(layers: Sequence[HeadLayer]) -> bool:
    """Whether each layer takes as many values as the one before it gives."""
    return all(before.features_out == after.features_in for before, after in pairwise(layers))


def _activations(layers: Sequence[HeadLayer]) -> tuple[int, ...] | None:
    """Positions of the assumed activations; None if one of them could be before or after a normalization."""
    places: list[list[int]] = []
    seen_linear = False
    for before, after in pairwise(layers):
        if before.kind == "linear":
            places.append([])
            seen_linear = True
        if seen_linear and int(after.name) - int(before.name) > 1:
            places[-1].append(int(before.name) + 1)
    if any(len(positions) > 1 for positions in places):
        return None
    return tuple(position for positions in places for position in positions)


def _module(layer: HeadLayer) -> nn.Module:
    if layer.kind == "linear":
        return nn.Linear(layer.features_in, layer.features_out, bias=layer.has_bias)
    return nn.BatchNorm1d(layer.features_in) if layer.kind == "batch norm" else nn.LayerNorm(layer.features_in)


def _nested(names: Sequence[str], module: nn.Module) -> nn.Module:
    """``module`` within a Sequential for each of ``names``, so that its tensors have these names before theirs."""
    for name in reversed(names):
        module = nn.Sequential(OrderedDict({name: module}))
    return module


def _described(layer: HeadLayer) -> str:
    if layer.kind == "linear":
        return f"Linear({layer.features_in}, {layer.features_out})"
    return f"{'BatchNorm1d' if layer.kind == 'batch norm' else 'LayerNorm'}({layer.features_in})"
