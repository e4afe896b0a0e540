"""Keras files become engines that answer as Keras itself does."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batchcls.engine.manifest import Manifest
from tests.extras.answers import answered, assert_alike, built, drawn_images, refusal
from tests.extras.keras_models import SIDE, keras, layers, own_answers, own_pixels, randomized, settled, small_network

LABELS = "a,b,c,d"
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras, in itself


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return drawn_images(tmp_path_factory.mktemp("images"))


def test_a_mobilenet_v2_answers_as_keras_does(images: list[Path], tmp_path: Path) -> None:
    """The convolutions are those of the network that people train; the images are small, so that the test is quick."""
    network = keras.applications.MobileNetV2((96, 96, 3), alpha=0.35, weights=None, classes=4)
    network = settled(
        randomized(network), own_pixels(network, images, keras.applications.mobilenet_v2.preprocess_input)
    )
    network.save(tmp_path / "net.keras")

    result = built(tmp_path / "net.keras", tmp_path / "engine", "--labels", LABELS)

    assert result.exit_code == 0, result.output
    assert (
        "input 96x96, stretched, mean and std 0.5 (from keras.applications' preprocess_input of mobilenet_v2, which is "
        "assumed; --recipe changes it)"
    ) in " ".join(result.stderr.split())
    expected = own_answers(network, images, keras.applications.mobilenet_v2.preprocess_input)
    assert np.ptp(expected.argmax(1)) > 0
    assert_alike(answered(tmp_path / "engine", images[0].parent, tmp_path / "o.parquet"), expected)
    manifest = Manifest.read(tmp_path / "engine")
    assert (manifest.architecture, manifest.precision) == ("keras/mobilenet_v2", "fp32")


def with_own_rescaling(**options: Any) -> Any:
    return small_network(layers.Rescaling(1 / 127.5, offset=-1), **options)


def with_division() -> Any:
    """The tutorial's way: preprocess_input inside of the network, and a backbone behind it."""
    inputs = keras.Input((SIDE, SIDE, 3))
    scaled = keras.applications.mobilenet_v2.preprocess_input(layers.RandomFlip()(inputs))
    return randomized(keras.Model(inputs, small_network()(scaled, training=False)))


def with_adapted_normalization() -> Any:
    pixels = np.random.default_rng(2).uniform(0, 255, (4, SIDE, SIDE, 3)).astype("float32")
    normalization = layers.Normalization()
    normalization.adapt(pixels)
    return small_network(normalization)


@pytest.mark.parametrize(
    ("make", "ending"),
    [
        (with_own_rescaling, "h5"),
        (with_division, "keras"),
        (with_division, "h5"),
        (with_adapted_normalization, "keras"),
    ],
)
def test_what_a_network_does_to_its_input_by_itself_is_not_done_twice(
    make: Any, ending: str, images: list[Path], tmp_path: Path
) -> None:
    network = make()
    network.save(tmp_path / f"net.{ending}")

    result = built(tmp_path / f"net.{ending}", tmp_path / "engine", "--labels", LABELS)

    assert result.exit_code == 0, result.output
    assert "values 0 to 255 (from the file's own" in result.stderr
    ours = answered(tmp_path / "engine", images[0].parent, tmp_path / "o.parquet")
    assert_alike(ours, own_answers(network, images))


def test_without_a_hint_images_are_said_to_be_taken_as_0_to_1(images: list[Path], tmp_path: Path) -> None:
    network = small_network(activation="linear")
    network.save(tmp_path / "net.keras")

    result = built(tmp_path / "net.keras", tmp_path / "engine", "--labels", LABELS, "--verify", str(images[0].parent))

    assert "32x32, stretched, values 0 to 1 (assumed; --recipe changes it)" in result.stderr
    assert "matches Keras on 64 images: top-1 agreement 100.0000%" in result.stdout
    logits = own_answers(network, images, lambda pixels: pixels / 255)
    expected = np.asarray(keras.ops.softmax(logits).detach())
    assert_alike(answered(tmp_path / "engine", images[0].parent, tmp_path / "o.parquet"), expected)


def test_a_single_sigmoid_unit_is_the_second_of_two_classes(images: list[Path], tmp_path: Path) -> None:
    network = with_own_rescaling(units=1, activation="sigmoid")
    network.save(tmp_path / "net.keras")

    result = built(tmp_path / "net.keras", tmp_path / "engine", "--labels", "healthy,ill")

    assert result.exit_code == 0, result.output
    second = own_answers(network, images)
    expected = np.concatenate([1 - second, second], axis=1)
    assert_alike(answered(tmp_path / "engine", images[0].parent, tmp_path / "o.parquet"), expected)


def test_a_network_of_one_channel_takes_gray_images(images: list[Path], tmp_path: Path) -> None:
    network = small_network(layers.Rescaling(1 / 255), channels=1)
    network.save(tmp_path / "net.keras")

    result = built(tmp_path / "net.keras", tmp_path / "engine", "--labels", LABELS)

    assert result.exit_code == 0, result.output
    expected = own_answers(network, images, color_mode="grayscale")
    assert_alike(answered(tmp_path / "engine", images[0].parent, tmp_path / "o.parquet"), expected)


def test_a_recipe_says_otherwise_what_is_assumed(images: list[Path], tmp_path: Path) -> None:
    network = small_network()
    network.save(tmp_path / "net.keras")
    (tmp_path / "net.toml").write_text(
        'channels = "BGR"\nmean = [0.4, 0.45, 0.5]\nstd = [0.2, 0.2, 0.2]\nlabels = ["a", "b", "c", "d"]\n'
    )

    result = built(tmp_path / "net.keras", tmp_path / "engine", "--recipe", str(tmp_path / "net.toml"))

    assert result.exit_code == 0, result.output
    assert "(from recipe net.toml)" in result.stderr
    expected = own_answers(network, images, lambda pixels: (pixels[..., ::-1] / 255 - [0.4, 0.45, 0.5]) / 0.2)
    assert_alike(answered(tmp_path / "engine", images[0].parent, tmp_path / "o.parquet"), expected)


def test_a_network_trained_in_mixed_precision_is_built_in_float32(images: list[Path], tmp_path: Path) -> None:
    network = small_network(layers.Rescaling(1 / 255), dtype="mixed_float16")
    network.save(tmp_path / "net.keras")

    result = built(tmp_path / "net.keras", tmp_path / "engine", "--labels", LABELS)

    assert "trained in mixed_float16; built, and compared, in float32" in result.stderr
    assert Manifest.read(tmp_path / "engine").precision == "fp32"


def test_int8_is_measured_on_images_as_keras_takes_them(images: list[Path], tmp_path: Path) -> None:
    network = small_network(layers.Rescaling(1 / 255))
    network.save(tmp_path / "net.keras")

    result = built(
        *(tmp_path / "net.keras", tmp_path / "engine", "--labels", LABELS),
        *("--precision", "int8", "--calibrate", str(images[0].parent)),
    )

    assert result.exit_code == 0, result.output
    assert "keras/sequential" in result.stdout
    assert Manifest.read(tmp_path / "engine").precision == "int8"


def test_what_no_engine_can_do_is_refused(tmp_path: Path) -> None:
    small_network(activation="sigmoid").save(tmp_path / "several.keras")
    small_network().save(tmp_path / "net.keras")
    small_network().save_weights(tmp_path / "net.weights.h5")

    assert "an image may have several labels at once" in refusal(
        tmp_path / "several.keras", tmp_path, "--labels", LABELS
    )
    assert "holds weights alone" in refusal(tmp_path / "net.weights.h5", tmp_path, "--labels", LABELS)
    assert "cannot be made fp16" in refusal(tmp_path / "net.keras", tmp_path, "--labels", LABELS, "--precision", "fp16")
    line = refusal(tmp_path / "net.keras", tmp_path, "--labels", LABELS, "--architecture", "googlenet")
    assert "leave --architecture out" in line
    assert "4 classes, none was named" in refusal(tmp_path / "net.keras", tmp_path)


def test_neither_keras_nor_its_settings_are_left_in_the_home(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / ".keras").mkdir()
    (home / ".keras" / "keras.json").write_text('{"backend": "jax", "floatx": "float16", "epsilon": 0.1}')
    small_network().save(tmp_path / "net.keras")

    process = subprocess.run(
        [sys.executable, "-m", "batchcls", "build", tmp_path / "net.keras", "--labels", LABELS]
        + ["--out", tmp_path / "engine", "--device", "cpu"],
        env={**os.environ, "HOME": str(home), "KERAS_BACKEND": "tensorflow"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert process.returncode == 0, process.stderr
    assert [path.name for path in home.rglob("*") if path.is_file()] == ["keras.json"]


def test_keras_in_use_with_another_backend_is_refused_with_the_way_out() -> None:
    code = "import keras; from batchcls.building.keras.library import keras_library; keras_library()"

    process = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "KERAS_BACKEND": "openvino", "KERAS_HOME": os.devnull},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (
        "Keras is in use with its backend 'openvino'; begin a new program with: export KERAS_BACKEND=torch"
        in process.stderr
    )
