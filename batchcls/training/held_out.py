"""How a trained network classifies images that it has never seen: as they are, and with changed colors."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, f1_score
from sklearn.neighbors import KNeighborsClassifier
from torch import nn
from torchvision.transforms import functional

from batchcls.interrupts import Interrupt
from batchcls.networks.preprocess import Preprocess
from batchcls.networks.transforms import input_transform
from batchcls.records import Slide
from batchcls.training.loading import Examples, open_example
from batchcls.training.trainer import probabilities

_MOST_CHANGED, _MOST_NEIGHBORS = 2000, 20_000
"""Largest numbers of held-out images to classify with changed colors, and of training images to compare them with."""
_COLOR_CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    **{f"hue {turn:+d} degrees": partial(functional.adjust_hue, hue_factor=turn / 360) for turn in (-10, -5, 5, 10)},
    **{
        f"brightness {percent:+d} %": partial(functional.adjust_brightness, brightness_factor=1 + percent / 100)
        for percent in (-10, 10)
    },
}
_HISTOGRAM_BITS = 3
"""Bits kept of each of R, G and B in a histogram, which then has 512 colors."""
_HISTOGRAM_SIDE_PX = 256
"""Longer side above which an image is made smaller before its colors are counted."""


def held_out_metrics(
    network: nn.Module, train: Examples, held_out: Examples, preprocess: Preprocess, device: str, interrupt: Interrupt
) -> dict[str, Any]:
    """Accuracy with its 95 % interval (Wilson's), macro F1 and confusion matrix of held-out images, as JSON values.

    Two further accuracies put these into perspective, each over at most 2,000 of the held-out images: that of the
    nearest neighbor among the training images by color alone, and the network's own with hue or brightness shifted.
    Macro F1 is the mean over the classes that have held-out images.

    Args:
        network: Takes (N, 3, H, W) float32 and answers (N, classes) logits; is moved to ``device``.
        train: Images that the network learned from.
        held_out: Images that the network has not learned from.
        device: ``cpu`` or ``cuda:N``.
    """
    truth = np.array(held_out.targets)
    predicted = probabilities(network, held_out, input_transform(preprocess), device, interrupt).argmax(1)
    correct = int((predicted == truth).sum())
    interval = binomtest(correct, len(truth)).proportion_ci(method="wilson")
    step = -(-len(truth) // _MOST_CHANGED)
    sample, sample_truth = _evenly_sampled(held_out, _MOST_CHANGED), truth[::step]
    nearest = _nearest_by_color(_evenly_sampled(train, _MOST_NEIGHBORS), sample, interrupt)
    accuracies = {"none": float((predicted == truth)[::step].mean())}
    for name, change in _COLOR_CHANGES.items():
        transform = input_transform(preprocess, [change])
        answers = probabilities(network, sample, transform, device, interrupt).argmax(1)
        accuracies[name] = float((answers == sample_truth).mean())
    return {
        "images": len(truth),
        "accuracy": correct / len(truth),
        "accuracy_95": [float(interval.low), float(interval.high)],
        "macro_f1": float(f1_score(truth, predicted, average="macro", labels=np.unique(truth), zero_division=0.0)),
        "confusion": confusion_matrix(truth, predicted, labels=range(held_out.classes)).tolist(),
        "colour_histogram_nearest_neighbour": float((nearest == sample_truth).mean()),
        "in_other_colours": {"images": len(sample.slides), "accuracy": accuracies},
    }


def _evenly_sampled(examples: Examples, most: int) -> Examples:
    """Every n-th example, with the smallest n that leaves at most ``most`` of them."""
    step = -(-len(examples.slides) // most)
    return replace(examples, slides=examples.slides[::step], targets=examples.targets[::step])


def _nearest_by_color(train: Examples, held_out: Examples, interrupt: Interrupt) -> npt.NDArray[np.int64]:
    """(held-out images,) the class of the training image with the most similar color histogram, by L1 distance."""
    model = KNeighborsClassifier(1, metric="manhattan")
    histograms = np.stack([_color_histogram(slide) for slide in interrupt.checked(train.slides)])
    model.fit(histograms, np.asarray(train.targets))
    return np.asarray(
        model.predict(np.stack([_color_histogram(slide) for slide in interrupt.checked(held_out.slides)]))
    )


def _color_histogram(slide: Slide) -> npt.NDArray[np.float32]:
    """(512,) the fraction of pixels of each color."""
    with open_example(slide) as image:
        image.draft("RGB", (_HISTOGRAM_SIDE_PX, _HISTOGRAM_SIDE_PX))
        small = image.convert("RGB")
        small.thumbnail((_HISTOGRAM_SIDE_PX, _HISTOGRAM_SIDE_PX))
        levels = np.asarray(small).reshape(-1, 3).astype(np.int32) >> (8 - _HISTOGRAM_BITS)
    codes = (levels[:, 0] << 2 * _HISTOGRAM_BITS) | (levels[:, 1] << _HISTOGRAM_BITS) | levels[:, 2]
    counts = np.bincount(codes, minlength=1 << 3 * _HISTOGRAM_BITS)
    return np.asarray(counts / counts.sum(), np.float32)
