"""Let a trained network learn how its own images look, so that its engine can tell how strange others look."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn

from batchcls.engine.novelty_fit import ReferenceImages
from batchcls.engine.novelty_record import EXAMPLES, learn
from batchcls.engine.postprocess import to_predictions
from batchcls.engine.probes import draw_candidates
from batchcls.errors import SlidesError
from batchcls.interrupts import Interrupt
from batchcls.networks.feature_extraction import FeatureExtractor, feature_extractor
from batchcls.networks.recipe import Recipe
from batchcls.networks.transforms import pixel_transform
from batchcls.records import Outputs
from batchcls.storage.file_names import printable
from batchcls.storage.natural_order import natural_key
from batchcls.training.loading import Examples, ordered_batches

_MOST_IMAGES = 5_120
"""Images of a split that are learned from, at most."""


def learned_novelty(
    network: nn.Module, splits: Mapping[str, Examples], recipe: Recipe, device: str, interrupt: Interrupt
) -> tuple[dict[str, Any] | None, list[str]]:
    """The entry ``novelty`` of a checkpoint's metadata, and notes for the user, one line each.

    The statistics are fitted to training images, and calibrated on validation images.

    Args:
        network: The trained network, in eval mode.
        splits: Images by split, with ``train`` and ``val``.
        recipe: Labels and preprocessing.
        device: ``cpu`` or ``cuda:N``.

    Returns:
        None for a network that has no features, or if there are too few images; the notes say which.
    """
    labels = len(recipe.labels)
    drawn = draw_candidates(recipe.preprocess.size_px, range(2 * EXAMPLES))
    extractor = feature_extractor(network, recipe.preprocess, labels, drawn, device)
    if extractor is None:
        return None, ["without novelty: the network has no layers behind a convolution that it could be told by"]
    parts = [_in_order(splits[split]) for split in ("train", "val")]
    images = _reference(parts, extractor, recipe, interrupt)
    folder = os.path.basename(os.path.normpath(splits["train"].slides[0].root))
    try:
        learned, notes = learn(images, extractor.layout, labels, printable(folder))
    except SlidesError as error:
        return None, [f"without novelty: {error}"]
    return learned.in_checkpoint(extractor.outputs(drawn[:EXAMPLES]).features), notes


def _in_order(examples: Examples) -> Examples:
    """Some of the examples, class by class in their natural order."""
    rows = sorted(
        range(len(examples.slides)), key=lambda row: (examples.targets[row], natural_key(examples.slides[row].path))
    )
    rows = rows[:: -(-len(rows) // _MOST_IMAGES)]
    return Examples([examples.slides[row] for row in rows], [examples.targets[row] for row in rows], examples.classes)


def _reference(
    parts: list[Examples], extractor: FeatureExtractor, recipe: Recipe, interrupt: Interrupt
) -> ReferenceImages:
    """The network's answers to training images, and behind them to validation images, which are held back."""
    outputs: list[Outputs] = []
    transform = pixel_transform(recipe.preprocess)
    for part in parts:
        for pixels, _ in interrupt.checked(ordered_batches(part, transform)):
            outputs.append(extractor.outputs(pixels.numpy()))
    train, val = (len(part.slides) for part in parts)
    return ReferenceImages(
        names=[printable(slide.path) for part in parts for slide in part.slides],
        features=np.concatenate([output.features for output in outputs]),
        predicted=to_predictions(np.concatenate([output.logits for output in outputs])).labels,
        held_back=np.arange(train + val) >= train,
    )
