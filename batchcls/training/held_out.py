"""How a trained network answers images that it has never seen: as they are, and in other colours."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from PIL import Image
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, f1_score
from torch import nn
from torchvision.transforms import functional

from batchcls.interrupts import Interrupt
from batchcls.networks.transforms import input_transform
from batchcls.records import Preprocess
from batchcls.training.color_baseline import nearest_neighbour
from batchcls.training.loading import Examples
from batchcls.training.trainer import probabilities

_MOST_IMAGES, _MOST_KNOWN = 2000, 20_000
"""What takes long is measured on so many, evenly taken."""
_STAINS: dict[str, Callable[[Image.Image], Image.Image]] = {
    **{f"hue {turn:+d} degrees": partial(functional.adjust_hue, hue_factor=turn / 360) for turn in (-10, -5, 5, 10)},
    **{
        f"brightness {percent:+d} %": partial(functional.adjust_brightness, brightness_factor=1 + percent / 100)
        for percent in (-10, 10)
    },
}


def held_out_metrics(
    network: nn.Module, known: Examples, unseen: Examples, preprocess: Preprocess, device: str, stop: Interrupt
) -> dict[str, Any]:
    """Accuracy with its 95 % interval (Wilson's), macro F1 and confusion matrix over ``unseen``; JSON values.

    Macro F1 is of the classes that ``unseen`` has images of.

    And what any such figure has to be read against: the accuracy of the nearest neighbour among ``known`` by colour
    alone, and of the network where hue and brightness are shifted; both of 2,000 of ``unseen`` at most.
    """
    truth = np.array(unseen.targets)
    found = probabilities(network, unseen, input_transform(preprocess), device, stop).argmax(1)
    right = int((found == truth).sum())
    interval = binomtest(right, len(truth)).proportion_ci(method="wilson")
    some = _evenly(unseen, _MOST_IMAGES)
    step = -(-len(truth) // _MOST_IMAGES)
    known = _evenly(known, _MOST_KNOWN)
    nearest = nearest_neighbour((known.files, known.targets), some.files, stop)
    stained = {"none": float((found == truth)[::step].mean())}
    for name, change in _STAINS.items():
        answers = probabilities(network, some, input_transform(preprocess, [change]), device, stop).argmax(1)
        stained[name] = float((answers == truth[::step]).mean())
    return {
        "images": len(truth),
        "accuracy": right / len(truth),
        "accuracy_95": [float(interval.low), float(interval.high)],
        "macro_f1": float(f1_score(truth, found, average="macro", labels=np.unique(truth), zero_division=0.0)),
        "confusion": confusion_matrix(truth, found, labels=range(unseen.classes)).tolist(),
        "colour_histogram_nearest_neighbour": float((nearest == truth[::step]).mean()),
        "in_other_colours": {"images": len(some.files), "accuracy": stained},
    }


def _evenly(examples: Examples, most: int) -> Examples:
    step = -(-len(examples.files) // most)
    return replace(examples, files=examples.files[::step], targets=examples.targets[::step])
