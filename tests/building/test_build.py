"""`batchcls build`: a whole, verified engine folder in the place of the old one, or nothing at all."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from click.testing import CliRunner, Result
from rich.console import Console
from safetensors.torch import save
from torch import Tensor, nn

from batchcls.building.build import BuildOptions, build_engine
from batchcls.cli import main
from batchcls.engine.backends.openvino_core import CORE
from batchcls.engine.manifest import Manifest, sha256
from batchcls.engine.postprocess import to_predictions
from batchcls.networks.architectures import SmallCnn
from batchcls.networks.checkpoint_metadata import CheckpointMetadata
from batchcls.networks.tensors import read_trained_tensors
from tests.conftest import ROOT, draw
from tests.engines import opened_engine

LABELS = "Benign,Early,Pre,Pro"


def build_result(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["build", *map(str, arguments)])


def file_contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def fields(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fields")
    for seed in range(5):
        draw(folder / f"{seed}.jpg", seed, (320, 240), quality=90)
    (folder / "broken.jpg").write_bytes((folder / "0.jpg").read_bytes()[:2000])
    return folder


def test_without_the_build_extra_the_command_that_brings_it_is_named(tiny_onnx: Path, tmp_path: Path) -> None:
    code = "import sys; sys.modules['torch'] = None; from batchcls.cli import main; main(sys.argv[1:], 'batchcls')"
    arguments = ["build", tiny_onnx, "--out", tmp_path / "e", "--labels", "a,b,c"]

    process = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)

    assert (process.returncode, process.stdout) == (1, "")
    assert process.stderr.splitlines() == [
        "batchcls: building a trained file needs torch, which is not installed; run: pip install 'batchcls[build]'"
    ]
    assert not (tmp_path / "e").exists()


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    """A ResNet-18 for four classes, and its checkpoint."""
    path = tmp_path_factory.mktemp("checkpoints") / "resnet.pth"
    with torch.random.fork_rng():
        torch.manual_seed(2)
        network = torchvision.models.resnet18(num_classes=4).eval()
    torch.save({"state_dict": network.state_dict(), "arch": "resnet18"}, path)
    return network, path


@pytest.fixture(scope="module")
def engine(resnet: tuple[nn.Module, Path], fields: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engines") / "resnet"
    options = ("--architecture", "resnet18", "--labels", LABELS, "--verify", fields)
    result = build_result(resnet[1], "--out", folder, *options)
    assert result.exit_code == 0, result.output
    assert "resnet18 fp16 with 4 classes" in result.stdout
    assert "matches PyTorch on 5 images, 1 unreadable: top-1 agreement 100.0000%" in result.stdout
    assert "on average; this is no check of accuracy" in result.stdout
    return folder


def test_a_verification_that_could_read_few_images_says_so_first(tiny_onnx: Path, fields: Path, tmp_path: Path) -> None:
    shutil.copytree(fields, tmp_path / "slides")
    for number in range(6):
        (tmp_path / "slides" / f"broken{number}.jpg").write_bytes(b"\xff\xd8 no more")

    result = build_result(
        tiny_onnx, "--out", tmp_path / "e", "--labels", "a,b,c", "--verify", tmp_path / "slides", "--device", "cpu"
    )

    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0] == (
        "7 of 12 images below 'slides' could not be read, so the rest says little of them; see why with batchcls run"
    )


def test_the_engine_folder_says_what_it_is_and_how_far_it_agrees(
    engine: Path, resnet: tuple[nn.Module, Path], fields: Path
) -> None:
    manifest = Manifest.read(engine)

    assert sorted(file_contents(engine)) == ["engine.json", "model.onnx", "probe_features.bin"]
    assert (manifest.name, manifest.architecture, manifest.precision) == ("resnet", "resnet18", "fp16")
    assert manifest.labels == tuple(LABELS.split(","))
    assert manifest.checkpoint_sha256 == sha256(resnet[1])
    assert manifest.onnx_sha256 == sha256(engine / "model.onnx")
    assert {"torch", "torchvision", "openvino", "dali"} <= set(manifest.versions)
    found = manifest.verification
    assert found is not None
    assert (found.images, found.unreadable, found.folder) == (5, 1, fields.name)
    assert (found.top1_agreement, found.disagreements) == (1.0, ())
    assert 0 <= found.mean_difference <= found.largest_difference < 0.02
    assert found.shipped.startswith("turbo, openvino")


@pytest.mark.parametrize("images", [1, 5])
def test_the_network_takes_any_number_of_pixel_images_and_answers_as_trained(
    engine: Path, resnet: tuple[nn.Module, Path], images: int
) -> None:
    pixels = np.random.default_rng(7).integers(0, 256, (images, 224, 224, 3), np.uint8)
    normalize = torchvision.transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with torch.inference_mode():
        expected = resnet[0](normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255)).softmax(1).numpy()

    model = CORE.compile_model(engine / "model.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    logits = model(pixels)["logits"]

    assert model.inputs[0].get_any_name() == "pixels"
    assert logits.dtype == np.float32
    np.testing.assert_allclose(to_predictions(logits).probabilities, expected, atol=0.002)


def test_the_network_tells_nothing_of_the_machine_it_was_built_on(engine: Path, fields: Path) -> None:
    everything = b"".join(file_contents(engine).values())

    for private in (str(ROOT), sys.prefix, str(fields.parent), "site-packages", "Traceback"):
        assert private.encode() not in everything


def test_a_rebuild_replaces_the_engine_and_keeps_what_else_was_written(
    engine: Path, fields: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(engine, tmp_path / "engine")
    (out / "README.md").write_text("the model card")
    (out / "plans").mkdir()
    (out / "plans" / "sm90.plan").write_text("of the old network")
    (tmp_path / "recipe.toml").write_text('transform_input = true\nresize = "shorter"\nshorter_px = 230\n')
    (tmp_path / "labels.txt").write_text("one\ntwo\nthree\n")
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = torchvision.models.googlenet(num_classes=3, aux_logits=True, init_weights=False)
    torch.save(network.state_dict(), tmp_path / "a.pth")
    recipe = ("--recipe", tmp_path / "recipe.toml", "--labels", tmp_path / "labels.txt", "--precision", "fp32")

    result = build_result(tmp_path / "a.pth", "--out", out, *recipe, "--verify", fields, "--overwrite")

    assert result.exit_code == 0, result.output
    manifest = Manifest.read(out)
    assert sorted(file_contents(out)) == ["README.md", "engine.json", "model.onnx", "probe_features.bin"]
    assert (out / "README.md").read_text() == "the model card"
    assert manifest.onnx_sha256 == sha256(out / "model.onnx")
    assert (manifest.architecture, manifest.precision) == ("googlenet", "fp32")
    assert manifest.labels == ("one", "two", "three")
    assert (manifest.preprocess.transform_input, manifest.preprocess.resize) == (True, "shorter")
    assert manifest.verification is not None
    assert manifest.verification.top1_agreement == 1.0
    assert {path.name for path in tmp_path.iterdir()} == {"engine", "recipe.toml", "labels.txt", "a.pth"}


def test_an_engine_that_disagrees_is_refused_and_the_old_one_stays(
    tiny_engine: Path, fields: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(tiny_engine, tmp_path / "engine")
    network = torchvision.models.alexnet()
    network.classifier = nn.Linear(9216, 3)
    with torch.no_grad():  # half precision cannot tell 1000 from 1000.05, so that another class comes first
        network.classifier.weight.zero_()
        network.classifier.bias.copy_(torch.tensor([1000, 1000.05, 0]))
    torch.save(network.state_dict(), tmp_path / "a.pth")

    options = ("--labels", "a,b,c", "--verify", fields, "--overwrite")
    result = build_result(tmp_path / "a.pth", "--out", out, *options)

    assert result.exit_code == 1
    assert "top-1 agreement over 5 images is 0.0000, below 0.995" in result.stderr
    assert "these differ: 0.jpg, 1.jpg, 2.jpg, 3.jpg, 4.jpg; " in result.stderr
    assert file_contents(out) == file_contents(tiny_engine)
    assert {path.name for path in tmp_path.iterdir()} == {"engine", "a.pth"}


def save_no_weights(path: Path) -> None:
    torch.save({"epoch": 3}, path)


def save_weights(path: Path, **changed: Tensor) -> None:
    torch.save(torchvision.models.mobilenet_v2(num_classes=3).state_dict() | changed, path)


@pytest.mark.parametrize(
    ("write", "options", "message"),
    [
        (save_no_weights, ("--labels", "a,b,c"), "holds no weights"),
        (Path.touch, ("--labels", "a,b,c"), "is empty"),
        (save_weights, ("--labels", "a,b"), "has 3 classes, 2 labels were named"),
        (save_weights, (), "has 3 classes, none was named"),
        (save_weights, ("--labels", "a,b,c", "--architecture", "resnet18"), "try --architecture mobilenet_v2"),
        (
            lambda path: save_weights(path, **{"classifier.1.bias": torch.tensor([0, 1e6, 0])}),
            ("--labels", "a,b,c"),
            "a weight of 1e+06 does not fit half precision; build with --precision fp32",
        ),
    ],
)
def test_a_refused_checkpoint_leaves_nothing_behind(
    write: Callable[[Path], Any], options: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    write(tmp_path / "a.pth")

    result = build_result(tmp_path / "a.pth", "--out", tmp_path / "engine", *options)

    assert result.exit_code == 1
    assert message in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]


def test_an_out_that_cannot_be_written_is_refused(tiny_onnx: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    result = build_result(tiny_onnx, "--out", tmp_path / "file" / "engine", "--labels", "a,b,c")

    assert result.exit_code == 1
    assert "file/engine': File exists; choose another --out" in result.stderr


def test_an_engine_is_replaced_with_overwrite_alone(tiny_onnx: Path, tiny_engine: Path, tmp_path: Path) -> None:
    out = shutil.copytree(tiny_engine, tmp_path / "engine")
    (tmp_path / "bad.pth").touch()

    refused = build_result(tmp_path / "bad.pth", "--out", out, "--labels", "x,y,z")  # before the file is looked at
    assert refused.exit_code == 1
    assert f"{str(out)!r} is an engine already; replace it with --overwrite, or choose another --out" in refused.stderr
    assert file_contents(out) == file_contents(tiny_engine)

    replaced = build_result(tiny_onnx, "--out", out, "--labels", "x,y,z", "--device", "cpu", "--overwrite")
    assert replaced.exit_code == 0, replaced.output
    assert Manifest.read(out).labels == ("x", "y", "z")


def test_an_empty_folder_may_become_an_engine(tiny_onnx: Path, tmp_path: Path) -> None:
    (tmp_path / "engine").mkdir()

    result = build_result(tiny_onnx, "--out", tmp_path / "engine", "--labels", "a,b,c", "--device", "cpu")

    assert result.exit_code == 0, result.output


def test_a_folder_of_another_framework_is_called_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").touch()

    result = build_result(tmp_path / "saved", "--out", tmp_path / "engine", "--labels", "a,b")

    assert result.exit_code == 1
    assert "is a SavedModel of TensorFlow; turn it into ONNX: python -m tf2onnx.convert --saved-model" in result.stderr


def test_a_folder_that_is_no_engine_is_not_replaced(tiny_onnx: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("three years")

    result = build_result(tiny_onnx, "--out", tmp_path, "--labels", "a,b,c")

    assert result.exit_code == 1
    assert "exists and is no engine folder; choose another --out" in result.stderr
    assert file_contents(tmp_path) == {"thesis.tex": b"three years"}


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_a_trained_file_may_have_a_name_that_is_not_utf8(ending: str, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff." + ending.encode())
    tensors = SmallCnn(2).state_dict()
    torch.save(tensors, path) if ending == "pth" else path.write_bytes(save(tensors, {"by": "a test"}))

    trained = read_trained_tensors(path)

    assert trained.tensors.keys() == tensors.keys()
    assert CheckpointMetadata.read(path) == CheckpointMetadata()


@pytest.mark.parametrize(("out", "images"), [(b"\xff", b"images"), (b"engine", b"\xff")])
def test_folders_may_have_names_that_are_not_utf8(out: bytes, images: bytes, tiny_onnx: Path, tmp_path: Path) -> None:
    folder, verified = (tmp_path / os.fsdecode(name) for name in (out, images))
    draw(verified / os.fsdecode(b"\xfe.jpg"))

    build_engine(
        tiny_onnx,
        folder,
        BuildOptions(values={"labels": ("a", "b", "c")}, verification_images=verified),
        Console(quiet=True),
    )

    with closing(opened_engine(folder, threads=1)) as engine:
        assert engine.info.labels == ("a", "b", "c")
