"""Networks of Keras, saved as a .keras file, and fed by ``load_img`` and the application's ``preprocess_input``."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

os.environ["KERAS_BACKEND"] = "torch"  # Keras reads it while it is imported
import keras

from benchmarks.agreement.prepared import LABELS, SEED, Prepared, write_recipe

_SIDE = 224
_SPREAD = 1.5
"""Standard deviation of each logit over the images."""


def prepare(name: str, folder: Path, files: Sequence[Path]) -> Prepared:
    """A network of Keras, saved in ``folder``, with its answers to ``files``."""
    keras.utils.set_random_seed(SEED)
    network, preprocess_input, scale = _network(name)
    pixels = [keras.utils.img_to_array(keras.utils.load_img(file, target_size=(_SIDE, _SIDE))) for file in files]
    images = preprocess_input(np.stack(pixels))
    _spread_answers(network, images)
    network.save(folder / "network.keras")
    arguments = write_recipe(folder, interpolation="nearest", **scale)
    answers = np.asarray(network.predict(images, verbose=0), np.float64)
    return Prepared("network.keras", arguments, answers)


def _network(name: str) -> tuple[Any, Any, dict[str, Any]]:
    """A network, its preprocessing of pixels, and the recipe keys of that."""
    applications = keras.applications
    options = {"weights": None, "classes": len(LABELS), "input_shape": (_SIDE, _SIDE, 3)}
    if name == "MobileNetV2":
        half = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
        return applications.MobileNetV2(**options), applications.mobilenet_v2.preprocess_input, half
    if name == "EfficientNetB0":
        return applications.EfficientNetB0(**options), applications.efficientnet.preprocess_input, {}
    return _home_made(), lambda pixels: pixels, {}


def _home_made() -> Any:
    """A network as tutorials have it: a Rescaling, convolutions with poolings, a Dropout and two Dense layers."""
    layers = keras.layers
    convolutions = [
        layer
        for width in (16, 32, 64)
        for layer in (layers.Conv2D(width, 3, activation="relu"), layers.BatchNormalization(), layers.MaxPooling2D())
    ]
    return keras.Sequential(
        [
            layers.Input((_SIDE, _SIDE, 3)),
            layers.Rescaling(1 / 255),
            *convolutions,
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(len(LABELS), activation="softmax"),
        ]
    )


def _spread_answers(network: Any, images: Any) -> None:
    """As `benchmarks.agreement.random_weights.spread_answers`, for Keras."""
    norms = [layer for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        norm.beta.assign(np.ones(norm.beta.shape))
    for _ in norms[:1]:
        network(images, training=True)  # every statistic becomes that of these images
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    last = network.layers[-1]
    weights, bias = last.get_weights()
    features = keras.Model(network.inputs, last.input).predict(images, verbose=0)
    logits = features @ weights + bias
    factor = _SPREAD / logits.std(0)
    last.set_weights([weights * factor, (bias - logits.mean(0)) * factor])
