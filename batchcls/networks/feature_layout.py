"""The order of an engine's features: appearance first, then the pooled activations of each layer."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from batchcls.networks.appearance import APPEARANCE_NAMES

MOST_FEATURES = 1 << 16
"""Largest number of features of an image that an engine may answer with."""

STEP_PREFIX = "features/step"
"""Beginning of the names of the tensors and constants in an ONNX file that serve the features alone."""


@dataclass(frozen=True, slots=True)
class FeatureLayer:
    """A layer of a network whose activations are pooled: one number for each channel, the mean over space."""

    name: str
    """Name of the tensor in the ONNX file."""
    width: int
    """Number of channels."""


@dataclass(frozen=True, slots=True)
class FeatureLayout:
    """Where each part of an image's features stands."""

    layers: tuple[FeatureLayer, ...]
    """Pooled layers, the first of the network first."""

    def __post_init__(self) -> None:
        if not all(layer.width > 0 for layer in self.layers) or self.width > MOST_FEATURES:
            raise ValueError(f"layers must have 1 or more channels, and {MOST_FEATURES:,} features are the most")

    @classmethod
    def of_values(cls, values: Mapping[str, Any] | None) -> "FeatureLayout | None":
        """The layout that the field ``features`` of engine.json holds; None where there is none.

        Raises:
            KeyError, TypeError, ValueError: If ``values`` are no such field.
        """
        if values is None:
            return None
        pairs = [(name, width) for name, width in values["layers"]]
        if not all(isinstance(name, str) and type(width) is int for name, width in pairs):
            raise ValueError("its feature layers are no pairs of a name and a whole number")
        return cls(tuple(FeatureLayer(name, width) for name, width in pairs))

    def values(self) -> dict[str, Any]:
        """What engine.json holds in the field ``features``."""
        return {"layers": [[layer.name, layer.width] for layer in self.layers]}

    @property
    def width(self) -> int:
        """Number of features of an image."""
        return len(APPEARANCE_NAMES) + sum(layer.width for layer in self.layers)

    @property
    def appearance(self) -> slice:
        """Columns of the appearance numbers, in the order of `APPEARANCE_NAMES`."""
        return slice(0, len(APPEARANCE_NAMES))

    @property
    def layer_slices(self) -> tuple[slice, ...]:
        """Columns of each layer."""
        ends = list(accumulate((layer.width for layer in self.layers), initial=len(APPEARANCE_NAMES)))
        return tuple(map(slice, ends, ends[1:]))

    @property
    def embedding(self) -> slice:
        """Columns of the last layer; empty where there is no layer."""
        return self.layer_slices[-1] if self.layers else slice(0, 0)
