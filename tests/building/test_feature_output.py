"""An engine's second output holds the features that they are said to be, in every type and operator set."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest

from batchcls.building.onnx.classifier import classifier_from_model, read_model
from batchcls.building.onnx.edits import with_preprocessing
from batchcls.building.onnx.feature_output import add_features
from batchcls.building.onnx.graph_steps import GraphSteps
from batchcls.engine.backends.onnx_weights import names_every_weight
from batchcls.networks.appearance import appearance
from batchcls.networks.feature_layout import FeatureLayout
from batchcls.networks.preprocess import Preprocess
from batchcls.records import Pixels
from tests.building.drawn_onnx import BYTES, FLOAT, HALF, HEIGHT, MEAN, NUMPY, STD, WIDTH, Drawing, pixels_to_try
from tests.engines import opened_engine
from tests.quantized_engines import SIDE, resized_images

DRAWINGS = [
    *(Drawing(opset=opset) for opset in (7, 9, 11, 12, 13, 17, 18, 20, 23)),
    Drawing(computes=HALF, takes=HALF),
    Drawing(takes=BYTES, layout="NHWC"),
    Drawing(channels=1, ending="sigmoid"),
]


def featured(drawing: Drawing, folder: Path, middle: Any = None) -> tuple[Path, FeatureLayout | None]:
    """An engine's ONNX file of a drawn network, and the layout of its features."""
    path = folder / "drawn.onnx"
    onnx.save(drawing.model(middle), path)
    scales = {} if drawing.takes == BYTES else {"mean": (MEAN,) * drawing.channels, "std": (STD,) * drawing.channels}
    preprocess = Preprocess((HEIGHT, WIDTH), channels="L" if drawing.channels == 1 else "RGB", **scales)
    classifier = classifier_from_model(path, read_model(path), preprocess=preprocess)
    onnx.save(with_preprocessing(classifier.model, classifier.layout, preprocess), path)
    return path, add_features(path)


def outputs(path: Path, pixels: Pixels) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Logits and features."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    logits, features = session.run(["logits", "features"], {"pixels": pixels})
    return logits, features


def activations(path: Path, name: str, pixels: Pixels) -> npt.NDArray[np.float64]:
    """The values of a tensor of the network."""
    model = onnx.load(path)
    model.graph.output.append(onnx.ValueInfoProto(name=name))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run([name], {"pixels": pixels})[0], np.float64)


@pytest.mark.parametrize("drawing", DRAWINGS, ids=str)
def test_features_are_the_appearance_and_the_means_of_the_layer(drawing: Drawing, tmp_path: Path) -> None:
    path, layout = featured(drawing, tmp_path)
    pixels = pixels_to_try()

    _, features = outputs(path, pixels)

    assert layout is not None
    assert features.dtype == np.float32
    assert features.shape == (len(pixels), layout.width)
    np.testing.assert_allclose(features[:, layout.appearance], appearance(pixels), rtol=2e-5, atol=1e-5)
    values = activations(path, layout.layers[-1].name, pixels).mean(axis=(2, 3))
    np.testing.assert_allclose(features[:, layout.embedding], values, rtol=1e-3 if drawing.computes == HALF else 1e-5)


def test_features_change_no_logit(tmp_path: Path) -> None:
    path, _ = featured(Drawing(), tmp_path)
    model = onnx.load(path)
    del model.graph.output[1:]
    plain = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

    np.testing.assert_array_equal(outputs(path, pixels_to_try())[0], plain.run(None, {"pixels": pixels_to_try()})[0])


def test_the_largest_numbers_of_half_precision_have_a_finite_mean(tmp_path: Path) -> None:
    def loud(steps: GraphSteps, name: str) -> str:
        half = NUMPY[HALF]
        loudest = steps.add("Mul", steps.add("Clip", name, half(1), half(2)), half(30000))
        return steps.add("Identity", loudest)

    def quiet(steps: GraphSteps, name: str) -> str:
        return steps.add("Mul", loud(steps, name), NUMPY[HALF](1 / 30000))

    path, layout = featured(Drawing(takes=HALF, computes=HALF), tmp_path, quiet)
    model = onnx.load(path)
    assert layout is not None
    values = activations(path, layout.layers[-1].name, pixels_to_try())

    features = outputs(path, pixels_to_try())[1][:, layout.embedding]

    assert model.graph.output[1].type.tensor_type.elem_type == FLOAT
    np.testing.assert_allclose(features, values.mean(axis=(2, 3)), rtol=1e-3)


def test_a_network_without_a_convolution_stays_as_it_was(tiny_engine: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes((tiny_engine / "model.onnx").read_bytes())

    assert add_features(path) is None
    assert path.read_bytes() == (tiny_engine / "model.onnx").read_bytes()


@pytest.mark.parametrize("name", ["small_fp32", "small_int8"])
def test_an_engine_answers_the_same_with_and_without_features(name: str, field_images: Path, request: Any) -> None:
    folder, pixels = request.getfixturevalue(name), resized_images(field_images, SIDE)

    featured, plain = (opened_engine(folder, threads=1, features=wanted).infer(pixels) for wanted in (True, False))

    np.testing.assert_array_equal(featured.logits, plain.logits)
    assert plain.features.shape == (len(pixels), 0)
    np.testing.assert_allclose(featured.features, outputs(folder / "model.onnx", pixels)[1], rtol=0.02, atol=0.02)


def test_weights_of_the_appearance_do_not_hide_pytorchs_names(tmp_path: Path) -> None:
    path, _ = featured(Drawing(), tmp_path)
    model = onnx.load(path)
    for item in (*model.graph.initializer, *model.graph.node):
        item.name = item.name.replace("network/", "network.")
    for node in model.graph.node:
        node.input[:] = [name.replace("network/", "network.") for name in node.input]
        node.output[:] = [name.replace("network/", "network.") for name in node.output]
    onnx.save(model, path)

    assert names_every_weight(path)
