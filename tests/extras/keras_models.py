"""Small Keras networks with random weights, and Keras's own answers."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from batchcls.building.keras.library import keras_library

keras = keras_library()
layers = keras.layers
SIDE = 32


def randomized(model: Any) -> Any:
    """``model`` with weights drawn at random, always the same, such that its answers differ between images."""
    random = np.random.default_rng(5)
    for variable in model.weights:
        noise = random.normal(0, 1, variable.shape)
        if len(variable.shape) > 1:
            variable.assign(noise / np.sqrt(np.prod(variable.shape[:-1])))
        elif variable.dtype == "float32":
            variable.assign(keras.ops.convert_to_numpy(variable) + 0.1 * abs(noise))
    return model


def small_network(*first: Any, channels: int = 3, units: int = 4, activation: str = "softmax", **options: Any) -> Any:
    """A home-made network: ``first`` layers, convolutions, and a Dense layer."""
    return randomized(
        keras.Sequential(
            [
                keras.Input((SIDE, SIDE, channels)),
                *first,
                layers.Conv2D(8, 3, strides=2, activation="relu", **options),
                layers.BatchNormalization(),
                layers.RandomFlip(),
                layers.MaxPooling2D(),
                layers.Flatten(),
                layers.Dropout(0.5),
                layers.Dense(units, activation=activation),
            ]
        )
    )


def settled(model: Any, pixels: npt.NDArray[np.float32]) -> Any:
    """``model`` with the statistics of ``pixels`` in its batch normalizations, so that its answers differ."""
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.0
    model(pixels, training=True)
    return model


def own_pixels(
    model: Any, images: list[Path], preprocess: Any = lambda pixels: pixels, color_mode: str = "rgb"
) -> npt.NDArray[np.float32]:
    """Image files as Keras reads them, preprocessed by ``preprocess``."""
    size = tuple(model.inputs[0].shape[1:3])
    pixels = [
        keras.utils.img_to_array(
            keras.utils.load_img(path, color_mode=color_mode, target_size=size, interpolation="bilinear")
        )
        for path in images
    ]
    return np.asarray(preprocess(np.stack(pixels)))


def own_answers(model: Any, images: list[Path], *ways: Any, **options: Any) -> npt.NDArray[np.float32]:
    """Keras's own answers to image files; ``ways`` and ``options`` as of `own_pixels`."""
    return np.asarray(model.predict(own_pixels(model, images, *ways, **options), verbose=0))
