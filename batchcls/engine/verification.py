"""How far an engine agreed with its training framework, and with class folders, when it was built."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class FolderAccuracy:
    """How often an engine's labels are the names of the folders that the images are in."""

    images: int
    """Number of images inside of class folders, 1 or more."""
    accuracy: float
    """Share of ``images`` with the right label, 0 to 1."""
    interval: tuple[float, float]
    """Wilson's 95 % interval of ``accuracy``."""
    better_labels: tuple[str, ...]
    """Labels in the order in which by far more images would be right; empty if there is none."""
    better_accuracy: float
    """Accuracy with ``better_labels``; that of the engine if there are none."""


@dataclass(frozen=True, slots=True)
class Verification:
    """How far an engine and the training framework agree on image files."""

    images: int
    """Number of the images that both could decode."""
    top1_agreement: float
    """Share of ``images`` whose most probable class is the same, 0 to 1."""
    largest_difference: float
    """Largest difference of a class's probability, 0 to 1."""
    mean_difference: float
    """Mean difference of a class's probability, 0 to 1."""
    disagreements: tuple[str, ...]
    """Paths, relative to ``folder``, of the files whose most probable class differs."""
    unreadable: int
    """Number of the files that one of the two, or both, could not decode."""
    folder: str
    """Name of the folder of images."""
    shipped: str
    """Decoder, backend, precision and device that computed the engine's answers."""
    reference: str
    """Libraries that computed the training framework's answers."""
    accuracy: FolderAccuracy | None = None
    """Accuracy by the names of class folders; None if ``folder`` has none, and in engines of older versions."""

    @classmethod
    def of_values(cls, values: Mapping[str, Any]) -> Self:
        """A verification from the values of a JSON object.

        Raises:
            TypeError: If a value is missing, unknown, or of another type.
        """
        own = {**values, "disagreements": tuple(values["disagreements"])}
        accuracy = values.get("accuracy")
        if accuracy is not None:
            low, high = map(float, accuracy["interval"])
            labels = tuple(map(str, accuracy["better_labels"]))
            own["accuracy"] = FolderAccuracy(**{**accuracy, "interval": (low, high), "better_labels": labels})
        return cls(**own)
