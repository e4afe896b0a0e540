"""Engines in fewer bits answer like float32, and what checks a plan of them is the same on every machine."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import openvino as ov
import pytest
import torch
import torchvision
from click.testing import CliRunner, Result
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from rich.console import Console
from torch import nn

from batchcls.building.onnx.classifier import load_classifier
from batchcls.building.onnx.signed import signed_activations
from batchcls.building.plans import build_plan_here, build_plans_for
from batchcls.building.quantization import quantize
from batchcls.building.tensorrt_plan import PlanOptions
from batchcls.cli import main
from batchcls.engine.backends import open_engine
from batchcls.engine.check import check
from batchcls.engine.manifest import Manifest, sha256
from batchcls.engine.postprocess import predictions
from batchcls.engine.probes import probe_pixels
from batchcls.engine.sidecar import Sidecar
from batchcls.errors import EngineError
from batchcls.records import Logits, Pixels
from tests.commandline import PATIENCE_S, invoked
from tests.conftest import ROOT, draw

SIDE = 32
MEAN, STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
IMAGES = 24


def built(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["build", *map(str, arguments), "--device", "cpu"])


def made(*arguments: str | Path) -> Path:
    """The engine folder that a build has made."""
    result = built(*arguments)
    assert result.exit_code == 0, result.output
    return Path(arguments[arguments.index("--out") + 1])


@pytest.fixture(scope="module")
def fields(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images in three colours, all of them as bright."""
    folder = tmp_path_factory.mktemp("fields")
    for seed in range(IMAGES):
        tint = np.roll([1, 0.9, 0.8], seed)
        pixels = np.asarray(Image.open(draw(folder / f"{seed:02d}.png", seed, (160, 120))))
        Image.fromarray((pixels * tint).astype(np.uint8)).save(folder / f"{seed:02d}.png")
    return folder


def shown(folder: Path, side: int) -> Pixels:
    paths = sorted(folder.glob("*.png"))
    return np.stack([np.asarray(Image.open(path).resize((side, side), Image.Resampling.BILINEAR)) for path in paths])


def normalised(pixels: Pixels) -> npt.NDArray[np.float32]:
    return np.ascontiguousarray(((pixels / np.float32(255) - MEAN) / STD).transpose(0, 3, 1, 2))


def convolutional(
    fields: Path, layout: str = "NCHW", takes: int = TensorProto.FLOAT, loudest: float = 1
) -> onnx.ModelProto:
    """Two convolutions, each with a ReLU behind it, and an answer in which the fields differ.

    Args:
        loudest: By how much the first channel between them is louder than it would be; the second takes it back.
    """
    random = np.random.default_rng(3)
    w1, b1 = random.normal(0, 0.25, (8, 3, 3, 3)), random.normal(0, 0.1, 8)
    w2, b2 = random.normal(0, 0.15, (16, 8, 3, 3)), random.normal(0, 0.1, 16)
    images = torch.from_numpy(normalised(shown(fields, SIDE))).double()
    hidden = torch.conv2d(images, torch.from_numpy(w1), torch.from_numpy(b1), padding=1).relu()
    hidden = torch.conv2d(hidden, torch.from_numpy(w2), torch.from_numpy(b2), padding=1, stride=2).relu()
    features = hidden.mean((2, 3)).numpy()
    # In the two directions in which they differ most, so that no answer is a small difference of large numbers.
    most = np.linalg.svd(features - features.mean(axis=0), full_matrices=False)[2][:2].T
    w3 = most / (features @ most).std(axis=0) @ np.array([[1.5, -0.75, -0.75], [0, 1.3, -1.3]])
    b3 = -(features @ w3).mean(axis=0)
    w1[0], b1[0], w2[:, 0] = w1[0] * loudest, b1[0] * loudest, w2[:, 0] / loudest
    weights = {"w1": w1, "b1": b1, "w2": w2, "b2": b2, "w3": w3, "b3": b3}
    numbers = np.float16 if takes == TensorProto.FLOAT16 else np.float32
    before, nodes = "image", []
    if takes == TensorProto.UINT8:
        nodes.append(helper.make_node("Cast", [before], ["float"], to=TensorProto.FLOAT))
        before = "float"
    if layout == "NHWC":
        nodes.append(helper.make_node("Transpose", [before], ["planes"], perm=[0, 3, 1, 2]))
        before = "planes"
    nodes += [
        helper.make_node("Conv", [before, "w1", "b1"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2", "b2"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("GlobalAveragePool", ["d"], ["e"]),
        helper.make_node("Flatten", ["e"], ["f"]),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["scores"]),
    ]
    shape = [3, SIDE, SIDE] if layout == "NCHW" else [SIDE, SIDE, 3]
    answers = TensorProto.FLOAT16 if takes == TensorProto.FLOAT16 else TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "convolutional",
        [helper.make_tensor_value_info("image", takes, ["batch", *shape])],
        [helper.make_tensor_value_info("scores", answers, ["batch", 3])],
        [numpy_helper.from_array(value.astype(numbers), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.fixture(scope="module")
def small(fields: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "small.onnx"
    onnx.save(convolutional(fields), path)
    return path


@pytest.fixture(scope="module")
def fp32(small: Path) -> Path:
    return made(small, "--out", small.parent / "fp32", "--labels", "a,b,c")


@pytest.fixture(scope="module")
def int8(small: Path, fields: Path) -> Path:
    out = small.parent / "int8"
    return made(small, "--out", out, "--labels", "a,b,c", "--precision", "int8", "--calibrate", fields)


@pytest.fixture(scope="module")
def unequal(fields: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Answers as ``small`` does, with a channel so loud that int8 leaves nothing of the others."""
    path = tmp_path_factory.mktemp("onnx") / "unequal.onnx"
    onnx.save(convolutional(fields, loudest=100), path)
    return path


@pytest.fixture(scope="module")
def partly_int8(unequal: Path, fields: Path) -> tuple[Result, Path]:
    """What a build says that leaves a layer in float32, and its engine folder."""
    out = unequal.parent / "e"
    result = built(
        unequal, "--out", out, "--labels", "a,b,c", "--precision", "int8", "--calibrate", fields, "--verify", fields
    )
    assert result.exit_code == 0, result.output
    return result, out


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    """A ResNet-18 for four classes with statistics like a trained one's, and its checkpoint."""
    path = tmp_path_factory.mktemp("checkpoints") / "resnet.pth"
    with torch.random.fork_rng():
        torch.manual_seed(2)
        network = torchvision.models.resnet18(num_classes=4).eval()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean, 0, 0.1)
                nn.init.uniform_(module.running_var, 0.8, 1.2)
                nn.init.normal_(module.bias, 0, 0.1)
    torch.save(network.state_dict(), path)
    return network, path


@pytest.fixture(scope="module")
def resnet_bf16(resnet: tuple[nn.Module, Path]) -> Path:
    out = resnet[1].parent / "bf16"
    return made(resnet[1], "--out", out, "--labels", "a,b,c,d", "--precision", "bf16")


@pytest.fixture(scope="module")
def resnet_int8(resnet: tuple[nn.Module, Path], fields: Path) -> Path:
    few = resnet[1].parent / "few"
    few.mkdir()
    for path in sorted(fields.iterdir())[::6]:
        shutil.copy(path, few)
    out = resnet[1].parent / "int8"
    return made(resnet[1], "--out", out, "--labels", "a,b,c,d", "--precision", "int8", "--calibrate", few)


def answered(folder: Path, pixels: Pixels, **options: Any) -> Logits:
    with closing(open_engine(folder, **{"backend": "openvino", "device": "cpu", "threads": 2, **options})) as engine:
        return engine.infer(pixels)


def difference(ours: Logits, theirs: Logits) -> float:
    return float(np.abs(predictions(ours).probabilities - predictions(theirs).probabilities).max())


def types_of_weights(folder: Path) -> set[int]:
    return {item.data_type for item in onnx.load(folder / "model.onnx").graph.initializer if item.dims}


def test_an_int8_engine_answers_like_float32(int8: Path, fp32: Path, fields: Path) -> None:
    pixels = shown(fields, SIDE)
    exact, ours = answered(fp32, pixels, precision="f32"), answered(int8, pixels)

    assert len(set(predictions(exact).labels)) == 3
    assert 0 < difference(ours, exact) < 0.1
    assert Manifest.read(int8).precision == "int8"
    assert {"QuantizeLinear", "DequantizeLinear"} <= {n.op_type for n in onnx.load(int8 / "model.onnx").graph.node}
    with closing(open_engine(int8, backend="openvino", device="cpu", threads=1)) as engine:
        assert engine.info.precision == "int8"


def computed_in_int8(folder: Path) -> list[bool]:
    """Of the convolutions, in OpenVINO's order."""
    model = ov.Core().read_model(folder / "model.onnx")
    model.reshape([8, SIDE, SIDE, 3])
    steps = [step.get_rt_info() for step in ov.compile_model(model, "CPU").get_runtime_model().get_ordered_ops()]
    kernels = [step["primitiveType"].astype(str) for step in steps if step["layerType"].astype(str) == "Convolution"]
    return ["8" in kernel.rpartition("_")[2] for kernel in kernels]  # such as brgconv_avx512_I8


def test_an_int8_build_leaves_in_float32_what_int8_would_spoil_and_says_so(
    partly_int8: tuple[Result, Path], int8: Path
) -> None:
    result, engine = partly_int8

    assert "int8 with 1 layer left in float32: c; top-1 agreement over 24 images of --calibrate is 1.0000\n" in (
        result.stderr
    )
    verification = Manifest.read(engine).verification
    assert verification is not None
    assert (verification.images, verification.top1_agreement) == (IMAGES, 1.0)
    assert computed_in_int8(engine) == [True, False]
    assert computed_in_int8(int8) == [True, True]


def test_what_int8_would_spoil_is_spoilt_without_that(unequal: Path, fields: Path) -> None:
    """Else the test above would say little."""
    images = [image[None] for image in normalised(shown(fields, SIDE))]
    model = load_classifier(unequal).model

    plain, mended = quantize(model, images, 0), quantize(model, images, 0.995)

    assert (plain.float_layers, mended.float_layers) == ((), ("network/c",))
    assert plain.agreement < 0.995 <= mended.agreement


def test_normalisation_is_not_computed_in_int8(int8: Path) -> None:
    graph = onnx.load(int8 / "model.onnx").graph
    operators = [node.op_type for node in graph.node]

    assert operators.index("QuantizeLinear") > operators.index("Mul") > operators.index("Sub")


def test_an_int8_engine_of_channels_last_answers_like_float32(fields: Path, tmp_path: Path, fp32: Path) -> None:
    onnx.save(convolutional(fields, "NHWC"), tmp_path / "a.onnx")

    engine = made(
        tmp_path / "a.onnx", "--out", tmp_path / "e", "--labels", "a,b,c", "--precision", "int8", "--calibrate", fields
    )

    pixels = shown(fields, SIDE)
    assert 0 < difference(answered(engine, pixels), answered(fp32, pixels, precision="f32")) < 0.1


@pytest.mark.parametrize(
    ("name", "weights", "allowed"),
    [("resnet_bf16", TensorProto.BFLOAT16, 0.03), ("resnet_int8", TensorProto.INT8, 0.05)],
)
def test_a_trained_network_answers_like_float32(
    name: str, weights: int, allowed: float, resnet: tuple[nn.Module, Path], fields: Path, request: Any
) -> None:
    engine = request.getfixturevalue(name)
    pixels = shown(fields, 224)[::4]
    with torch.inference_mode():
        exact = resnet[0](torch.from_numpy(normalised(pixels))).numpy()

    ours = answered(engine, pixels)

    assert 0 < difference(ours, exact) < allowed
    assert weights in types_of_weights(engine)
    assert Manifest.read(engine).precision == name.partition("_")[2]


@pytest.mark.parametrize("name", ["fp32", "int8", "partly_int8", "resnet_bf16", "resnet_int8"])
def test_tensorrt_makes_plans_in_each_precision(
    name: str, request: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    made = request.getfixturevalue(name)
    engine = Path(shutil.copytree(made[1] if name == "partly_int8" else made, tmp_path / "e"))

    build_plans_for(engine, ["sm86", "sm89", "sm120"], PlanOptions(8), Console(quiet=True))

    warnings = [record.getMessage() for record in caplog.records if record.name == "batchcls.tensorrt"]
    assert warnings == []  # as there are when it takes unsigned bytes for signed ones
    manifest = Manifest.read(engine)
    for card in ("sm86", "sm89", "sm120"):
        said = Sidecar.read(engine / "plans" / f"{card}-any-tensorrt_rtx.json")
        plan = engine / "plans" / f"{card}-any-tensorrt_rtx.plan"
        assert said.precision == manifest.precision == name.rpartition("_")[2]
        assert said.onnx_sha256 == manifest.onnx_sha256 == sha256(engine / "model.onnx")
        assert (said.plan_sha256, said.plan_bytes) == (sha256(plan), plan.stat().st_size)


def broken(folder: Path) -> None:
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"\xff\xd8 no more")


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (None, "int8 needs typical images to take its ranges from; name a folder: --calibrate DIR"),
        (Path.mkdir, "no image that can be read was found in "),
        (broken, "no image that can be read was found in "),
    ],
    ids=["none", "empty", "broken"],
)
def test_without_typical_images_there_is_no_int8(
    fill: Callable[[Path], None] | None, message: str, small: Path, tmp_path: Path
) -> None:
    options: list[str | Path] = ["--labels", "a,b,c", "--precision", "int8"]
    if fill:
        fill(tmp_path / "images")
        options += ["--calibrate", tmp_path / "images"]

    result = built(small, "--out", tmp_path / "e", *options)

    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert message in result.stderr
    assert not (tmp_path / "e").exists()
    assert {path.name for path in tmp_path.iterdir()} <= {"images"}


@pytest.mark.parametrize(
    ("takes", "precision", "computes"),
    [
        (TensorProto.FLOAT16, "int8", "fp16"),
        (TensorProto.UINT8, "int8", "fp32"),
        (TensorProto.FLOAT, "bf16", "fp32"),
        (TensorProto.FLOAT, "fp16", "fp32"),
        (TensorProto.FLOAT16, "fp32", "fp16"),
    ],
)
def test_an_onnx_file_is_not_made_what_it_cannot_be(
    takes: int, precision: str, computes: str, fields: Path, tmp_path: Path
) -> None:
    onnx.save(convolutional(fields, takes=takes), tmp_path / "a.onnx")

    result = built(
        tmp_path / "a.onnx",
        "--out",
        tmp_path / "e",
        "--labels",
        "a,b,c",
        "--precision",
        precision,
        "--calibrate",
        fields,
    )

    assert result.exit_code == 1
    assert f"computes in {computes}, which cannot be made {precision}; " in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]


def by_onnxruntime(content: bytes, pixels: Pixels) -> Logits:
    """As every operator is defined, without putting any together."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"pixels": pixels})[0])


def types_of_zero_points(content: bytes) -> set[int]:
    graph = onnx.load_from_string(content).graph
    constants = {item.name: item.data_type for item in graph.initializer}
    steps = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert all(len(node.input) == 3 for node in steps)
    return {constants[node.input[2]] for node in steps}


@pytest.mark.parametrize(("name", "side"), [("int8", SIDE), ("resnet_int8", 224)])
def test_signed_activations_answer_like_unsigned_ones(name: str, side: int, fields: Path, request: Any) -> None:
    content = (request.getfixturevalue(name) / "model.onnx").read_bytes()
    pixels = shown(fields, side)[::3]

    signed = signed_activations(content)

    assert types_of_zero_points(content) == {TensorProto.UINT8, TensorProto.INT8}
    assert types_of_zero_points(signed) == {TensorProto.INT8}
    ours, theirs = by_onnxruntime(signed, pixels), by_onnxruntime(content, pixels)
    assert 0 < difference(ours, theirs) < 0.05


def test_without_the_wider_steps_signed_activations_would_be_cut_off(int8: Path, fields: Path) -> None:
    """That the images reach into the upper half, without which the comparison above would say little."""
    content, pixels = (int8 / "model.onnx").read_bytes(), shown(fields, SIDE)
    narrow = onnx.load_from_string(signed_activations(content))
    before = {item.name: item for item in onnx.load_from_string(content).graph.initializer}
    for item in narrow.graph.initializer:
        if item.name.startswith("scale_"):
            item.CopyFrom(before[item.name])

    ours, theirs = by_onnxruntime(narrow.SerializeToString(), pixels), by_onnxruntime(content, pixels)

    assert difference(ours, theirs) > 0.1


def test_what_is_not_quantised_is_left_as_it_is(fp32: Path) -> None:
    content = (fp32 / "model.onnx").read_bytes()

    assert onnx.load_from_string(signed_activations(content)) == onnx.load_from_string(content)


@pytest.mark.parametrize("zero_point", [1, 128, 255])
def test_a_zero_point_that_tensorrt_cannot_compute_with_is_refused(int8: Path, zero_point: int) -> None:
    model = onnx.load(int8 / "model.onnx")
    unsigned = next(item for item in model.graph.initializer if item.data_type == TensorProto.UINT8)
    unsigned.CopyFrom(numpy_helper.from_array(np.array(zero_point, np.uint8), unsigned.name))

    with pytest.raises(EngineError, match="a zero point that is not 0, which TensorRT cannot compute with"):
        signed_activations(model.SerializeToString())


QUIETLY = """
import sys
def told(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        with open(sys.argv[-1], "a") as log:
            log.write(f"{event} {arguments[:2]}\\n")
        raise OSError("there is no network")
sys.addaudithook(told)
"""


COMMAND = "from batchcls.cli import main\nmain(sys.argv[1:-1], standalone_mode=False)\n"
REPORTS = "import nncf.telemetry; print(type(nncf.telemetry.telemetry).__name__)"


def asked_of_the_network(code: str, *arguments: str | Path, log: Path) -> "subprocess.CompletedProcess[str]":
    """Run ``code`` in a process that writes down whom it asks, as a user who has set nothing runs it."""
    unset = ("NNCF_CI", "NNCF_DEV", "CI", "PYTEST_CURRENT_TEST")
    environment = {key: value for key, value in os.environ.items() if key not in unset}
    home = log.parent / "home"
    home.mkdir()
    return subprocess.run(
        [sys.executable, "-c", QUIETLY + code, *map(str, arguments), log],
        cwd=ROOT,
        env=environment | {"HOME": str(home), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )


@pytest.fixture(scope="module")
def int8_build(
    small: Path, fields: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple["subprocess.CompletedProcess[str]", Path]:
    """An int8 build's process, which goes on to tell who would be told of it; and its folder."""
    folder = tmp_path_factory.mktemp("process")
    process = asked_of_the_network(
        COMMAND + REPORTS,
        *("build", small, "--out", folder / "e", "--labels", "a,b,c", "--device", "cpu"),
        *("--precision", "int8", "--calibrate", fields),
        log=folder / "log",
    )
    return process, folder


def test_quantisation_does_not_report_its_use(
    int8_build: tuple["subprocess.CompletedProcess[str]", Path],
) -> None:
    reporter = int8_build[0].stdout.splitlines()[-1]

    assert reporter != "NNCFTelemetry"


def test_an_int8_build_says_nothing_but_its_result(
    int8_build: tuple["subprocess.CompletedProcess[str]", Path],
) -> None:
    process, folder = int8_build

    assert process.stdout.splitlines()[:-1] == [
        f"onnx int8 with 3 classes -> {folder / 'e'}",
        "never verified on images; build it with --verify FOLDER",
    ]
    assert process.stderr == ""


def test_no_build_asks_anybody_on_the_network(int8_build: tuple["subprocess.CompletedProcess[str]", Path]) -> None:
    _, folder = int8_build

    assert Manifest.read(folder / "e").precision == "int8"
    assert not (folder / "log").exists(), (folder / "log").read_text()


def test_no_run_asks_anybody_on_the_network(fp32: Path, fields: Path, tmp_path: Path) -> None:
    asked_of_the_network(
        COMMAND,
        *("run", fields, "--engine", fp32, "--out", tmp_path / "o.parquet", "--device", "cpu"),
        log=tmp_path / "log",
    )

    assert (tmp_path / "o.parquet").exists()
    assert not (tmp_path / "log").exists(), (tmp_path / "log").read_text()


@pytest.mark.parametrize("name", ["int8", "resnet_int8"])
def test_pytorch_refuses_an_int8_engine_and_names_the_way_out(name: str, request: Any) -> None:
    with pytest.raises(
        EngineError, match=r"in int8, which PyTorch cannot run; .* choose --backend openvino, .*tensorrt"
    ):
        open_engine(request.getfixturevalue(name), backend="torch", device="cpu", threads=1)


def test_pytorch_runs_a_bf16_engine(resnet_bf16: Path, resnet: tuple[nn.Module, Path], fields: Path) -> None:
    pixels = shown(fields, 224)[::4]
    with torch.inference_mode():
        exact = resnet[0](torch.from_numpy(normalised(pixels))).numpy()

    assert 0 < difference(answered(resnet_bf16, pixels, backend="torch"), exact) < 0.03


def test_pytorch_runs_an_engine_whose_biases_are_all_zero(resnet_bf16: Path, tmp_path: Path) -> None:
    """The exporter leaves such biases out, as of a network that was never trained."""
    engine = Path(shutil.copytree(resnet_bf16, tmp_path / "e"))
    model = onnx.load(engine / "model.onnx")
    biases = [node.input.pop() for node in model.graph.node if node.op_type == "Conv"]
    for item in [item for item in model.graph.initializer if item.name in biases]:
        model.graph.initializer.remove(item)
    onnx.save(model, engine / "model.onnx")
    replace(Manifest.read(engine), onnx_sha256=sha256(engine / "model.onnx")).write(engine)
    pixels = probe_pixels((224, 224))[:4]

    assert len(biases) == 20
    assert difference(answered(engine, pixels, backend="torch"), answered(engine, pixels)) < 0.03


# Probes, and the answers to them that an engine folder carries.


def test_an_engine_carries_the_answers_of_the_network_before_it_was_rounded(
    resnet_bf16: Path, resnet_int8: Path, resnet: tuple[nn.Module, Path]
) -> None:
    for engine in (resnet_bf16, resnet_int8):
        manifest = Manifest.read(engine)
        with torch.inference_mode():
            exact = resnet[0](torch.from_numpy(normalised(probe_pixels((224, 224), manifest.probes)))).numpy()

        np.testing.assert_allclose(np.array(manifest.reference), exact, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["fp32", "int8", "partly_int8", "resnet_bf16", "resnet_int8"])
def test_an_engine_agrees_with_the_answers_that_it_carries(name: str, request: Any) -> None:
    made = request.getfixturevalue(name)
    manifest = Manifest.read(made[1] if name == "partly_int8" else made)
    with closing(
        open_engine(made[1] if name == "partly_int8" else made, backend="openvino", device="cpu", threads=2)
    ) as engine:
        found = check(engine, manifest)

    assert found.probes == len(manifest.answers) == 16
    assert manifest.check is not None
    assert manifest.checked_on is not None
    assert (manifest.checked_on.backend, manifest.checked_on.precision) == ("openvino", engine.info.precision)


@pytest.mark.parametrize("name", ["int8", "partly_int8", "resnet_int8"])
def test_no_pair_of_products_overflows_sixteen_bits(name: str, request: Any) -> None:
    """Which is how a CPU without VNNI adds them."""
    made = request.getfixturevalue(name)
    graph = onnx.load((made[1] if name == "partly_int8" else made) / "model.onnx").graph
    weights = [numpy_helper.to_array(i) for i in graph.initializer if i.data_type == TensorProto.INT8 and i.dims]
    weights = [values.astype(int) for values in weights if values.ndim > 1]

    assert weights
    assert max(2 * 255 * np.abs(values).max() for values in weights) <= 2**15 - 1


@pytest.mark.parametrize("name", ["int8", "partly_int8"])
def test_an_int8_engine_answers_as_onnx_defines_it(name: str, fields: Path, request: Any) -> None:
    made = request.getfixturevalue(name)
    engine = made[1] if name == "partly_int8" else made
    pixels = shown(fields, SIDE)

    assert difference(answered(engine, pixels), by_onnxruntime((engine / "model.onnx").read_bytes(), pixels)) < 0.01


@pytest.fixture
def changed(fp32: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of an engine folder whose engine.json says something else; a field that is ``...`` is left out."""

    def change(**fields: Any) -> Path:
        folder = Path(shutil.copytree(fp32, tmp_path / "changed"))
        values = json.loads((folder / "engine.json").read_text()) | fields
        (folder / "engine.json").write_text(json.dumps({k: v for k, v in values.items() if v is not ...}))
        return folder

    return change


@pytest.mark.parametrize(
    "reference",
    [
        [[0.0] * 4] * 16,
        [[0.0] * 2] * 16,
        [[0.0] * 3] * 15 + [[0.0] * 2],
        [[]] * 16,
        [["a", "b", "c"]] * 16,
        [0.0] * 16,
        5,
    ],
    ids=["more", "fewer", "one fewer", "none", "texts", "flat", "number"],
)
def test_answers_of_another_number_of_classes_are_refused(changed: Callable[..., Path], reference: Any) -> None:
    folder = changed(reference=reference)

    with pytest.raises(EngineError, match="build the engine again"):
        Manifest.read(folder)


@pytest.mark.parametrize(
    "reference", [[[0.0] * 3] * 15, [[0.0] * 3] * 17, [[float("nan")] * 3] * 16], ids=["15", "17", "nan"]
)
def test_answers_that_no_engine_could_be_checked_by_are_refused(
    changed: Callable[..., Path], reference: Any, fp32: Path
) -> None:
    folder = changed(reference=reference, probes=..., answers=...)

    with (
        closing(open_engine(fp32, backend="openvino", device="cpu", threads=1)) as engine,
        pytest.raises(EngineError),
    ):
        check(engine, Manifest.read(folder))


@pytest.mark.parametrize(
    "written",
    [
        {"probes": [[0, 1, 2]] * 15},
        {"probes": [[0, 48, 2]] * 16},
        {"probes": [[0, -1, 2]] * 16},
        {"probes": [[0, 1, 257]] * 16},
        {"probes": [[0, 1]] * 16},
        {"probes": 5},
        {"answers": [[0.0] * 3] * 15},
        {"answers": [[0.0] * 2] * 16},
        {"check": {"probes": 16, "top1_agreement": "all", "largest_difference": 0.0}},
        {"check": {"moon": "full"}},
        {"checked_on": {"backend": "openvino"}},
        {"checked_on": 5},
    ],
    ids=str,
)
def test_probes_that_no_build_writes_are_refused(changed: Callable[..., Path], written: dict[str, Any]) -> None:
    folder = changed(**written)

    with pytest.raises(EngineError, match="build the engine again"):
        Manifest.read(folder)


@pytest.mark.parametrize("absent", [..., []], ids=["absent", "empty"])
def test_a_folder_from_before_there_were_probes_runs_with_a_warning_and_can_have_no_plan(
    changed: Callable[..., Path], absent: Any, fields: Path, tmp_path: Path
) -> None:
    folder = changed(reference=absent, probes=absent, answers=absent, check=..., checked_on=...)

    assert Manifest.read(folder).reference == ()
    result = invoked(fields, "--engine", folder, "--out", tmp_path / "o.parquet")
    assert result.exit_code == 0, result.output
    assert (
        "warning: engine 'fp32' is from before engines had probes, so nobody knows whether it answers" in result.stderr
    )
    with pytest.raises(EngineError, match=r"answers to 0 probes of 16, .* checked; run: batchcls build CHECK"):
        build_plan_here(folder, "cuda:0", PlanOptions(), Console(quiet=True))
    assert sorted(path.name for path in folder.iterdir()) == ["engine.json", "model.onnx"]
