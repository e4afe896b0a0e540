"""Statistics of the images that a network was trained for, as an engine or a checkpoint holds them."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from batchcls.engine.drift_reference import DriftReference
from batchcls.engine.measure_sums import ReferenceSums, fewest_reference_images
from batchcls.engine.measures import image_measures, measure_names
from batchcls.engine.novelty import LARGEST_BYTES, Novelty, feature_groups
from batchcls.engine.novelty_fit import ReferenceImages, fit_novelty
from batchcls.networks.feature_layout import FeatureLayout
from batchcls.records import Features

EXAMPLES = 8
"""Drawn images, the first of `batchcls.engine.probes.draw_candidates`, whose distances a checkpoint holds."""


@dataclass(frozen=True, slots=True)
class LearnedNovelty:
    """Statistics of novelty and drift of reference images."""

    novelty: Novelty
    drift: Mapping[str, Any] | None
    """Values of a `DriftReference`; None if there were too few images."""
    folder: str
    """Name of the folder of the images."""

    @property
    def header(self) -> dict[str, Any]:
        """The field ``novelty`` of engine.json."""
        return {"folder": self.folder, "statistics": self.novelty.header, "drift": self.drift}

    def in_checkpoint(self, examples: Features) -> dict[str, Any]:
        """The entry ``novelty`` of a checkpoint's metadata.

        Args:
            examples: (8, F) float32 features of the drawn examples, by which a build tells that its layers are these.
        """
        distances = self.novelty.score(examples).distances
        return {
            **self.header,
            "values": base64.b64encode(self.novelty.to_bytes()).decode(),
            "examples": [[float(f"{value:.7g}") for value in row] for row in distances],
        }

    @classmethod
    def of_checkpoint(cls, values: Mapping[str, Any], examples: Features, labels: int) -> "LearnedNovelty":
        """The statistics in a checkpoint, if they are of the same layers.

        Args:
            values: The entry ``novelty`` of the checkpoint's metadata.
            examples: (8, F) float32 features of the drawn examples, as the new engine answers them.
            labels: The engine's number of labels.

        Raises:
            ValueError: If it is damaged, or was learned with other layers.
        """
        try:
            text = str(values["values"])
            if len(text) > LARGEST_BYTES * 4 // 3 + 4:
                raise ValueError("it is larger than any that a training writes")
            novelty = Novelty.from_bytes(base64.b64decode(text, validate=True), values["statistics"])
            expected = np.array(values["examples"], np.float64)
            actual = novelty.score(examples).distances
            folder, drift = str(values["folder"]), values["drift"]
            reference = None if drift is None else DriftReference.of_values(drift)
        except (LookupError, TypeError, OverflowError, AttributeError) as error:
            raise ValueError(f"it is damaged: {error!r}") from error
        if reference and (reference.measures, len(reference.images)) != (measure_names(novelty.group_names), labels):
            raise ValueError("its reference of drift is of other measures or labels")
        if expected.shape != actual.shape or not np.allclose(actual, expected, rtol=_LARGEST_CHANGE):
            raise ValueError("its layers answer otherwise")
        return cls(novelty, drift, folder)


_LARGEST_CHANGE = 0.1
"""Largest relative change of an example's distance that half precision explains."""


def learn(images: ReferenceImages, layout: FeatureLayout, labels: int, folder: str) -> tuple[LearnedNovelty, list[str]]:
    """Statistics of reference images, and notes for the user, one line each.

    Args:
        images: The images in their natural order, class folder by class folder.
        layout: Order of the features.
        labels: Number of labels.
        folder: Name of the folder of the images.

    Raises:
        SlidesError: If there are too few images.
    """
    novelty, notes = fit_novelty(images, feature_groups(layout), labels)
    sums = ReferenceSums(measure_names(novelty.group_names), labels)
    distances = novelty.score(images.features).distances
    sums.add(image_measures(images.features[:, layout.appearance], distances), images.predicted)
    reference = sums.reference()
    if reference is None:
        notes.append(
            f"{len(images.names):,} images are too few to tell the drift of a run; "
            f"{fewest_reference_images(labels):,} are enough"
        )
    return LearnedNovelty(novelty, None if reference is None else reference.values(), folder), notes
