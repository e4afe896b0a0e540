"""What Keras 2 saved is read as Keras 3 would have saved it, and the networks of keras.applications are known."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest
import torch

from batchcls.building.keras.contents import opened_keras_file
from batchcls.building.keras.network import KerasNetwork, load_keras_network
from batchcls.building.keras.preprocessing import application, own_preprocessing
from tests.extras.keras_models import keras, layers, randomized, small_network

SIDE = 16
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras, in itself


def loaded(path: Path) -> Any:
    with opened_keras_file(path) as contents:
        return load_keras_network(path, contents)


def answers(model: Any) -> npt.NDArray[np.float32]:
    height, width, channels = model.inputs[0].shape[1:]
    pixels = np.random.default_rng(1).uniform(0, 255, (3, height, width, channels)).astype("float32")
    return np.asarray(model(pixels, training=False).detach())


def save_as_keras_2(model: Any, path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """An HDF5 file of Keras 3 whose configuration is changed to what Keras 2 wrote."""
    model.save(path)
    with h5py.File(path, "a") as file:
        configuration = json.loads(file.attrs["model_config"])
        change(configuration)
        file.attrs["model_config"] = json.dumps(configuration).encode()


def sequential_of_keras_2(configuration: dict[str, Any]) -> None:
    first, *rest = configuration["config"]["layers"]
    shape = first["config"]["batch_shape"]
    for layer in rest:
        settings = layer["config"]
        settings["dtype"] = {"class_name": "Policy", "config": {"name": "float32"}}
        if layer["class_name"] == "BatchNormalization":
            settings |= {"axis": [3], "fused": True}
        if layer["class_name"] == "DepthwiseConv2D":
            settings |= {"groups": 1}
        if layer["class_name"] == "SeparableConv2D":
            settings |= {"groups": 1, "kernel_initializer": {"class_name": "GlorotUniform", "config": {"seed": None}}}
        if layer["class_name"] == "LeakyReLU":
            settings["alpha"] = settings.pop("negative_slope")
    rest[0]["config"]["batch_input_shape"] = shape
    configuration["config"] = {"name": "sequential_1", "layers": rest}


def test_a_sequential_of_keras_2_is_the_same_network(tmp_path: Path) -> None:
    model = randomized(
        keras.Sequential(
            [
                keras.Input((SIDE, SIDE, 3)),
                layers.Conv2D(4, 3),
                layers.BatchNormalization(),
                layers.DepthwiseConv2D(3),
                layers.LeakyReLU(0.25),
                layers.SeparableConv2D(5, 3),
                layers.GlobalAveragePooling2D(),
                layers.Dense(3),
            ]
        )
    )
    save_as_keras_2(model, tmp_path / "net.h5", sequential_of_keras_2)

    np.testing.assert_array_equal(answers(loaded(tmp_path / "net.h5")), answers(model))


def functional_of_keras_2(configuration: dict[str, Any]) -> None:
    """TensorFlow's operations in the place of Keras's, and nodes as lists."""
    configuration["class_name"] = "Functional"
    functions = {"TrueDivide": "math.truediv", "Subtract": "math.subtract"}
    for layer in configuration["config"]["layers"]:
        nodes = []
        for node in layer["inbound_nodes"]:
            first, *others = node["args"]
            history = first["config"]["keras_history"]
            operation = layer["class_name"] in functions
            nodes.append([*history, {"y": others[0], "name": None}] if operation else [[*history, {}]])
        layer["inbound_nodes"] = nodes
        if layer["class_name"] in functions:
            function = functions[layer["class_name"]]
            layer |= {"class_name": "TFOpLambda", "config": {"name": layer["name"], "function": function}}
        if layer["class_name"] == "InputLayer":
            layer["config"]["batch_input_shape"] = layer["config"].pop("batch_shape")


def test_arithmetic_of_keras_2_is_the_same_in_keras_3(tmp_path: Path) -> None:
    inputs = keras.Input((SIDE, SIDE, 3))
    scaled = keras.applications.mobilenet_v2.preprocess_input(inputs)
    outputs = layers.Dense(3)(layers.GlobalMaxPooling2D()(layers.Conv2D(4, 3)(scaled)))
    model = randomized(keras.Model(inputs, outputs))
    save_as_keras_2(model, tmp_path / "net.h5", functional_of_keras_2)

    network = loaded(tmp_path / "net.h5")

    np.testing.assert_array_equal(answers(network), answers(model))
    assert own_preprocessing(network) == (
        {"mean": (0.0, 0.0, 0.0), "std": (1 / 255,) * 3},
        "the file's own arithmetic, TrueDivide",
    )


@pytest.mark.parametrize("ending", ["keras", "h5"])
@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
def test_layers_of_many_kinds_are_the_same_network(ending: str, layout: str, tmp_path: Path) -> None:
    options = {"data_format": layout}
    inputs = keras.Input((SIDE, SIDE, 3) if layout == "channels_last" else (3, SIDE, SIDE))
    axis = -1 if layout == "channels_last" else 1
    x = layers.Conv2D(8, 3, padding="same", activation=keras.activations.gelu, **options)(inputs)
    y = layers.Conv2DTranspose(8, 3, padding="same", kernel_regularizer="l2", **options)(x)
    x = layers.Concatenate(axis=axis)([x, layers.Add()([x, y])])
    x = layers.GroupNormalization(4, axis=axis)(layers.PReLU(shared_axes=[1, 2])(x))
    x = layers.AveragePooling2D(2, **options)(keras.ops.clip(x, -2, 2) * 0.5 + 1)
    x = layers.Reshape((64, 16))(x) if layout == "channels_last" else layers.Reshape((16, 64))(x)
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 8)(x, x))
    model = randomized(keras.Model(inputs, layers.Dense(3, activation="softmax")(layers.Flatten()(x))))
    model.save(tmp_path / f"net.{ending}")

    network = loaded(tmp_path / f"net.{ending}")

    pixels = np.random.default_rng(1).uniform(0, 1, (3, *model.input_shape[1:])).astype("float32")
    expected = np.asarray(model(pixels, training=False).detach())
    np.testing.assert_array_equal(np.asarray(network(pixels, training=False).detach()), expected)


@pytest.mark.parametrize(
    ("inputs", "wrapped"),
    [
        (keras.Input((None, None, 3)), lambda output: output),
        (keras.Input((SIDE, SIDE, 3), batch_size=1), lambda output: [output]),
        (keras.Input((SIDE, SIDE, 3), dtype="uint8"), lambda output: {"label": output}),
    ],
    ids=["free size", "fixed batch", "bytes"],
)
@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_inputs_and_outputs_of_other_forms_are_the_same_network(
    inputs: Any, wrapped: Any, ending: str, tmp_path: Path
) -> None:
    scaled = layers.Rescaling(1 / 255)(inputs)
    outputs = layers.Dense(3)(layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(scaled)))
    model = randomized(keras.Model(inputs, wrapped(outputs)))
    model.save(tmp_path / f"net.{ending}")
    pixels = np.random.default_rng(1).integers(0, 256, (1, SIDE, SIDE, 3))

    network = KerasNetwork(loaded(tmp_path / f"net.{ending}"), "NHWC").eval()

    ours = network(torch.from_numpy(pixels.transpose(0, 3, 1, 2).astype("float32")))
    (expected,) = keras.tree.flatten(model(pixels.astype(inputs.dtype), training=False))
    np.testing.assert_allclose(ours.detach(), expected.detach(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("MobileNet", "mobilenet"),
        ("MobileNetV2", "mobilenet_v2"),
        ("VGG16", "vgg16"),
        ("VGG19", "vgg19"),
        ("ResNet50", "resnet"),
        ("ResNet101V2", "resnet_v2"),
        ("DenseNet121", "densenet"),
        ("Xception", "xception"),
        ("InceptionV3", "inception_v3"),
    ],
)
@pytest.mark.parametrize("taken_apart", [False, True])
def test_an_application_is_known_and_its_preprocessing_is_its_own(name: str, module: str, taken_apart: bool) -> None:
    with keras.StatelessScope(initialize_variables=False):  # without memory for weights
        backbone = getattr(keras.applications, name)(include_top=False, weights=None, input_shape=(96, 96, 3))
        inputs, features = backbone.inputs, backbone.output
        if not taken_apart:
            inputs = [keras.Input((96, 96, 3))]
            features = backbone(inputs[0])
        model = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(features)))

    found = application(model)

    assert found is not None
    assert found[0] == module
    keys = {"channels": "RGB", **found[1]}
    pixels = np.random.default_rng(1).integers(0, 256, (1, 4, 4, 3)).astype("float64")
    ordered = pixels[..., ::-1] if keys["channels"] == "BGR" else pixels
    ours = (ordered / 255 - keys["mean"]) / keys["std"]
    expected = getattr(keras.applications, module).preprocess_input(pixels.copy())
    np.testing.assert_allclose(ours, expected, atol=1e-4)


@pytest.mark.parametrize("name", ["EfficientNetB0", "EfficientNetV2B0", "MobileNetV3Small", "ConvNeXtTiny"])
def test_an_application_with_its_own_preprocessing_takes_bytes(name: str) -> None:
    with keras.StatelessScope(initialize_variables=False):
        model = getattr(keras.applications, name)(include_top=False, weights=None, input_shape=(96, 96, 3))

    keys, origin = own_preprocessing(model) or ({}, "")

    assert keys["std"] == (1 / 255,) * 3
    assert "layer" in origin


def test_a_small_network_is_no_application() -> None:
    assert application(small_network()) is None
