"""Layers to pool are found in networks of any make, and again in PyTorch's own modules."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from torch import nn  # noqa: E402

from batchcls.building.onnx.feature_output import add_features  # noqa: E402
from batchcls.building.onnx.graph_steps import GraphSteps  # noqa: E402
from batchcls.engine.probes import draw_probes  # noqa: E402
from batchcls.networks.appearance import APPEARANCE_NAMES, appearance  # noqa: E402
from batchcls.networks.architectures import PixelClassifier, SmallCnn  # noqa: E402
from batchcls.networks.batch_norm import fuse_batch_norm  # noqa: E402
from batchcls.networks.export import export_classifier  # noqa: E402
from batchcls.networks.feature_layers import find_layers  # noqa: E402
from batchcls.networks.feature_layout import FeatureLayout  # noqa: E402
from batchcls.networks.feature_modules import Appearance, FeatureClassifier, matching_places  # noqa: E402
from batchcls.networks.preprocess import Preprocess  # noqa: E402

SIDE = 64
RANDOM = np.random.default_rng(5)


def weights(*shape: int) -> np.ndarray:
    return RANDOM.normal(0, 0.1, shape).astype(np.float32)


def network(body: Callable[[GraphSteps, str], str], last_channels: int) -> onnx.ModelProto:
    """A classifier of (N, 3, 64, 64) into five classes, of the layers of ``body`` and a linear one."""
    graph = onnx.GraphProto(name="network")
    steps = GraphSteps(graph, "v")
    name = steps.add("Flatten", steps.add("GlobalAveragePool", body(steps, "image")))
    graph.node.append(helper.make_node("MatMul", [name, steps.constant(weights(last_channels, 5))], ["logits"]))
    graph.input.append(helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, SIDE, SIDE]))
    graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 5]))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def convolution(steps: GraphSteps, name: str, before: int, channels: int, stride: int = 2, side: int = 3) -> str:
    kernel = weights(channels, before, side, side)
    return steps.add("Conv", name, kernel, pads=[side // 2] * 4, strides=[stride, stride])


def makers(model: onnx.ModelProto) -> dict[str, str]:
    """Type of the operator that makes each tensor."""
    return {name: node.op_type for node in model.graph.node for name in node.output}


def test_the_layers_of_a_residual_network_lie_where_all_paths_meet() -> None:
    def body(steps: GraphSteps, name: str) -> str:
        before = 3
        for channels in (16, 32, 64):
            name, before = steps.add("Relu", convolution(steps, name, before, channels)), channels
            inside = steps.add("Relu", convolution(steps, name, channels, channels, 1, 9))
            inside = convolution(steps, inside, channels, channels, 1, 9)
            name = steps.add("Relu", steps.add("Add", name, inside))
        return name

    model = network(body, 64)
    layers = find_layers(model)

    assert len(layers) > 1
    assert layers[-1].width == 64
    assert layers[-1].name == model.graph.node[-4].output[0], "the last sum's activation"
    assert layers[-1].axes == (2, 3)
    assert {makers(model)[layer.name] for layer in layers} == {"Relu"}
    inside = {model.graph.node[block + place].output[0] for block in (0, 7, 14) for place in (2, 3, 4, 5)}
    assert inside.isdisjoint(layer.name for layer in layers)


def test_of_a_convolution_its_activation_and_its_pooling_the_last_and_smallest_is_pooled() -> None:
    def body(steps: GraphSteps, name: str) -> str:
        return steps.add(
            "MaxPool", steps.add("Relu", convolution(steps, name, 3, 8)), kernel_shape=[2, 2], strides=[2, 2]
        )

    (layer,) = find_layers(network(body, 8))

    assert (layer.width, layer.values, layer.depth) == (8, 8 * 16 * 16, 1 - 8 * 5 / (8 * 27 * 32 * 32 + 8 * 5))


def test_a_quantized_layer_is_pooled_where_it_is_stored_as_bytes() -> None:
    def body(steps: GraphSteps, name: str) -> str:
        name = steps.add("Relu", convolution(steps, name, 3, 8))
        scale = np.float32(0.1), np.uint8(0)
        return steps.add("DequantizeLinear", steps.add("QuantizeLinear", name, *scale), *scale)

    model = network(body, 8)

    assert [makers(model)[layer.name] for layer in find_layers(model)] == ["DequantizeLinear"]


@pytest.mark.parametrize(("shape", "axes"), [([0, 16, 16, 24], (1, 2)), ([0, 256, 24], (1,))], ids=["NHWC", "tokens"])
def test_channels_behind_space_are_told_from_channels_before_it(shape: list[int], axes: tuple[int, ...]) -> None:
    def body(steps: GraphSteps, name: str) -> str:
        name = convolution(steps, convolution(steps, name, 3, 16), 16, 24)
        name = steps.add("Reshape", steps.add("Transpose", name, perm=[0, 2, 3, 1]), np.array(shape))
        name = steps.add("Add", steps.add("MatMul", name, weights(24, 24)), name)
        return steps.add("Unsqueeze", steps.add("ReduceMean", name, axes=list(axes), keepdims=0), np.array([2, 3]))

    layer = find_layers(network(body, 24))[-1]

    assert (layer.width, layer.axes) == (24, axes)


def test_a_network_without_a_convolution_has_no_layers(tiny_onnx: Path) -> None:
    assert find_layers(onnx.load(tiny_onnx)) == ()


def test_a_classifying_convolution_is_no_layer() -> None:
    """Its pooled values are the logits."""

    def body(steps: GraphSteps, name: str) -> str:
        return convolution(steps, steps.add("Relu", convolution(steps, name, 3, 12)), 12, 9)

    model = network(body, 9)
    model.graph.node[-1].CopyFrom(helper.make_node("Identity", [model.graph.node[-1].input[0]], ["logits"]))
    del model.graph.output[0].type.tensor_type.shape.dim[:]

    assert [layer.width for layer in find_layers(model)] == [12]


@pytest.fixture(scope="module")
def small_cnn() -> nn.Module:
    """A network of some convolutions with statistics of drawn images."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = SmallCnn(3)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None
        with torch.no_grad():
            network(torch.from_numpy(draw_probes((SIDE, SIDE))).permute(0, 3, 1, 2) / 127.5 - 1)
    return network.eval()


@pytest.fixture(scope="module")
def featured(small_cnn: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FeatureLayout]:
    """The network's ONNX file with features, and their layout."""
    path = tmp_path_factory.mktemp("featured") / "model.onnx"
    export_classifier(small_cnn, Preprocess(size_px=(SIDE, SIDE)), "fp32", path)
    layout = add_features(path)
    assert layout is not None
    return path, layout


@pytest.fixture
def classifier(small_cnn: nn.Module) -> PixelClassifier:
    """The network in PyTorch, as the torch backend makes it."""
    return PixelClassifier(fuse_batch_norm(small_cnn), Preprocess(size_px=(SIDE, SIDE)), torch.float32).eval()


def test_pytorch_finds_the_layers_and_gives_the_features_of_the_onnx_file(
    classifier: PixelClassifier, featured: tuple[Path, FeatureLayout]
) -> None:
    pixels, layout = draw_probes((SIDE, SIDE)), featured[1]
    session = onnxruntime.InferenceSession(featured[0], providers=["CPUExecutionProvider"])
    logits, features = session.run(["logits", "features"], {"pixels": pixels})

    places = matching_places(classifier, torch.from_numpy(pixels), features, layout)
    with torch.inference_mode():
        answers = FeatureClassifier(classifier, layout, places)(torch.from_numpy(pixels)).numpy()

    assert all(places)
    assert features.shape == (16, layout.width)
    np.testing.assert_allclose(answers, np.hstack([logits, features]), atol=1e-5, rtol=1e-3)


def test_a_layer_that_no_module_has_is_not_found(
    classifier: PixelClassifier, featured: tuple[Path, FeatureLayout]
) -> None:
    others = np.random.default_rng(0).random((16, featured[1].width), np.float32)

    places = matching_places(classifier, torch.from_numpy(draw_probes((SIDE, SIDE))), others, featured[1])

    assert set(places) == {""}


def test_pytorch_computes_the_appearance_as_it_is_defined() -> None:
    noise = np.random.default_rng(4).integers(0, 256, (3, 41, 50, 3), np.uint8)

    computed = Appearance()(torch.from_numpy(noise)).numpy()

    assert computed.shape == (3, len(APPEARANCE_NAMES))
    np.testing.assert_allclose(computed, appearance(noise), rtol=2e-5, atol=1e-6)
