"""Networks of timm become engines that answer as timm does, through timm's own preprocessing."""

import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import timm
import torch
from click.testing import CliRunner, Result
from PIL import Image
from timm.data import create_transform, resolve_data_config
from timm.models import get_pretrained_cfg
from torch import Tensor, nn

from batchcls.cli import main
from batchcls.engine.manifest import Manifest
from batchcls.errors import CheckpointError, RecipeError
from batchcls.networks.architectures import check_architecture, empty_network
from batchcls.networks.checkpoint import load_network
from batchcls.networks.recipe import Recipe
from batchcls.networks.timm_networks import timm_config, timm_preprocess
from batchcls.networks.trained_file import load_trained_file
from batchcls.networks.transforms import input_transform
from tests.conftest import draw
from tests.engines import opened_engine
from tests.networks.test_checkpoint import randomised

LABELS = "a,b,c"


def cli(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)), catch_exceptions=False)


def made(name: str, **options: Any) -> nn.Module:
    return randomised(timm.create_model(name, num_classes=3, **options))


def zeros(architecture: str) -> dict[str, Tensor]:
    state = empty_network(architecture, 3).state_dict()
    return {name: torch.zeros(tensor.shape, dtype=torch.float16) for name, tensor in state.items()}


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fields of odd sizes, smaller and larger than any input, high and wide."""
    folder = tmp_path_factory.mktemp("slides")
    for seed, size in enumerate([(64, 48), (333, 201), (201, 333), (225, 224), (161, 600)]):
        draw(folder / f"{seed}.png", seed, size)
    return folder


def answers_of_timm(network: nn.Module, name: str, slides: Path) -> Tensor:
    """(N, classes) probabilities, in the order of the files' names, through timm's own transform."""
    transform = create_transform(**resolve_data_config({}, pretrained_cfg=get_pretrained_cfg(name).to_dict()))
    images = [transform(Image.open(path).convert("RGB")) for path in sorted(slides.iterdir())]
    with torch.inference_mode():
        return network(torch.stack(images)).softmax(1)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
def test_an_engine_answers_as_timm_does_from_the_file_on(name: str, slides: Path, tmp_path: Path) -> None:
    network = made(name)
    torch.save(network.state_dict(), tmp_path / "m.pth")

    built = cli(
        *("build", tmp_path / "m.pth", "--architecture", f"timm/{name}", "--labels", LABELS, "--precision", "fp32"),
        *("--out", tmp_path / "e", "--verify", slides, "--device", "cpu"),
    )
    ran = cli(
        *("run", slides, "--engine", tmp_path / "e", "--out", tmp_path / "o.parquet", "--device", "cpu"),
        *("--precision", "fp32"),
    )

    assert (built.exit_code, ran.exit_code) == (0, 0), built.output + ran.output
    assert Manifest.read(tmp_path / "e").architecture == f"timm/{name}"
    table = pq.read_table(tmp_path / "o.parquet").sort_by("path")
    ours = np.array(table["probabilities"].to_pylist())
    assert np.abs(ours - answers_of_timm(network, name, slides).numpy()).max() < 1e-3


@pytest.mark.parametrize(
    "name",
    [
        "efficientnet_b0.ra_in1k",
        "tf_efficientnet_b0.ns_jft_in1k",
        "vit_base_patch16_224.augreg2_in21k_ft_in1k",
        "convnext_tiny.fb_in22k",
        "swin_tiny_patch4_window7_224",
        "beit_base_patch16_224",
        "resnet50.a1_in1k",
        "mobilenetv3_large_100",
        "vit_base_patch32_clip_448.laion2b_ft_in12k_in1k",
        "coat_lite_medium_384.in1k",
    ],
)
def test_a_recipe_from_timms_configuration_is_timms_own_transform(name: str, slides: Path) -> None:
    config = timm_config(name)
    preprocess = Recipe().with_values(timm_preprocess(config)).preprocess
    transform = create_transform(**resolve_data_config({}, pretrained_cfg=dict(config)))

    for path in slides.iterdir():
        with Image.open(path) as image:
            ours, theirs = input_transform(preprocess)(image.convert("RGB")), transform(image.convert("RGB"))
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-6)


def test_preprocessing_that_no_recipe_can_say_is_refused_unless_a_recipe_decides(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"crop_mode 'squash' with crop_pct 0\.9 and .* --recipe FILE"):
        timm_preprocess(timm_config("dm_nfnet_f0"))


@pytest.mark.parametrize("config", [{"input_size": [3, "x", 4]}, {"crop_pct": -1}, {"mean": 3}, {"std": [None] * 3}])
def test_a_configuration_that_makes_no_sense_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=r"timm's configuration (of|asks)"):
        timm_preprocess(config)


@pytest.mark.parametrize(
    ("architecture", "others"),
    [
        ("timm/efficientnet_b0", ["timm/tf_efficientnet_b0"]),
        ("timm/mobilenetv3_large_100", ["timm/tf_mobilenetv3_large_100"]),
    ],
)
def test_networks_that_share_their_tensors_and_compute_differently_are_refused_without_a_name(
    architecture: str, others: list[str], tmp_path: Path
) -> None:
    torch.save(zeros(architecture), tmp_path / "m.pth")

    with pytest.raises(CheckpointError, match="networks that compute differently") as refusal:
        load_network(tmp_path / "m.pth")
    for name in (architecture, *others):
        assert name in str(refusal.value)
        assert load_network(tmp_path / "m.pth", name).architecture == name


def test_one_network_of_timm_is_found_by_its_weights_alone(slides: Path, tmp_path: Path) -> None:
    network = made("test_efficientnet")
    torch.save({"model": {f"module.{name}": tensor for name, tensor in network.state_dict().items()}}, tmp_path / "m")

    trained = load_trained_file(tmp_path / "m", None, {"labels": ("a", "b", "c")})

    assert trained.network.architecture == "timm/test_efficientnet"
    assert trained.preprocess_origin == "timm's configuration of test_efficientnet"
    assert trained.recipe.preprocess.size_px == (160, 160)


ARGUMENTS = {"model": "resnet18", "img_size": 96, "crop_pct": 0.75, "mean": [0.5, 0.4, 0.3], "std": None, "lr": 0.1}


def test_a_checkpoint_of_timms_training_script_says_its_network_and_its_preprocessing(tmp_path: Path) -> None:
    content = {
        "epoch": 3,
        "arch": "resnet18",
        "state_dict": zeros("timm/resnet18"),
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1}]},
        "version": 2,
        "args": Namespace(**ARGUMENTS),
    }
    torch.save(content, tmp_path / "m.pth.tar")

    trained = load_trained_file(tmp_path / "m.pth.tar", None, {"labels": ("a", "b", "c")})

    preprocess = trained.recipe.preprocess
    assert trained.network.architecture == "timm/resnet18"
    assert trained.preprocess_origin.startswith("timm's configuration of resnet18 and the arguments of its training")
    assert (preprocess.size_px, preprocess.shorter_px, preprocess.mean) == ((96, 96), 128, (0.5, 0.4, 0.3))


def test_a_recipe_wins_over_timms_configuration(tmp_path: Path) -> None:
    torch.save(made("test_resnet").state_dict(), tmp_path / "m.pth")
    (tmp_path / "mine.toml").write_text("size_px = 64\nresize = 'stretch'\n")

    trained = load_trained_file(
        tmp_path / "m.pth", tmp_path / "mine.toml", {"labels": ("a", "b", "c"), "architecture": "timm/test_resnet"}
    )

    assert (trained.recipe.preprocess.size_px, trained.recipe.preprocess.resize) == ((64, 64), "stretch")
    assert trained.preprocess_origin == "timm's configuration of test_resnet"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm/efficientnet_bO", "nearest are .*timm/efficientnet_b0"),
        ("efficientnetv2_rw_s", "nearest are timm/efficientnetv2_rw_s"),
        ("timm/resnet18.a9_in1k", r"knows no weights 'a9_in1k' of resnet18; it has a1_in1k"),
        ("timm/hf-hub:x/y", "is not known"),
        ("timm/", "is not known"),
    ],
)
def test_a_name_with_a_typo_names_the_nearest(name: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        check_architecture(name)


def test_without_timm_the_extra_is_named_and_the_candidates_are_the_same(tmp_path: Path) -> None:
    torch.save(zeros("timm/efficientnet_b0"), tmp_path / "several.pth")
    torch.save(made("test_resnet").state_dict(), tmp_path / "one.pth")
    code = "import sys; sys.modules['timm'] = None; from batchcls.cli import main; main(sys.argv[1:], 'batchcls')"

    def built(*arguments: str) -> str:
        command = [sys.executable, "-c", code, "build", *arguments, "--labels", LABELS, "--out", str(tmp_path / "e")]
        return subprocess.run(command, capture_output=True, text=True, check=False).stderr

    needs = "needs timm, which is not installed; run: pip install 'batchcls[timm]'"
    assert needs in built(str(tmp_path / "one.pth"))
    assert needs in built(str(tmp_path / "one.pth"), "--architecture", "timm/test_resnet")
    assert "timm/efficientnet_b0, timm/tf_efficientnet_b0" in built(str(tmp_path / "several.pth"))


def test_a_network_of_timm_is_trained_built_and_run(tmp_path: Path) -> None:
    for seed in range(16):
        draw(tmp_path / "data" / ("dark" if seed % 2 else "light") / f"{seed}.png", seed, (40, 40))

    arguments = (tmp_path / "data", "--out", tmp_path / "m.safetensors", "--architecture", "timm/test_resnet")
    command = [sys.executable, "-m", "batchcls", "train", *map(str, arguments), "--epochs", "1", "--device", "cpu"]
    trained = subprocess.run([*command, "--batch-size", "4"], capture_output=True, text=True, check=False)
    built = cli("build", tmp_path / "m.safetensors", "--out", tmp_path / "e", "--device", "cpu")
    ran = cli("run", tmp_path / "data", "--engine", tmp_path / "e", "--out", tmp_path / "o.parquet", "--device", "cpu")

    codes = trained.returncode, built.exit_code, ran.exit_code
    assert codes == (0, 0, 0), trained.stderr + built.output + ran.output
    manifest = Manifest.read(tmp_path / "e")
    assert (manifest.architecture, manifest.labels) == ("timm/test_resnet", ("dark", "light"))
    assert manifest.preprocess == Recipe().with_values(timm_preprocess(timm_config("test_resnet"))).preprocess
    assert pq.read_table(tmp_path / "o.parquet").num_rows == 16


def test_pytorch_runs_an_engine_of_timm_as_openvino_does(tmp_path: Path) -> None:
    torch.save(made("test_resnet").state_dict(), tmp_path / "m.pth")
    arguments = ("--architecture", "timm/test_resnet", "--labels", LABELS, "--device", "cpu")
    assert cli("build", tmp_path / "m.pth", *arguments, "--out", tmp_path / "e").exit_code == 0
    pixels = np.random.default_rng(3).integers(0, 256, (4, 160, 160, 3), np.uint8)

    by_torch = opened_engine(tmp_path / "e", backend="torch").infer(pixels).logits
    by_openvino = opened_engine(tmp_path / "e", precision="f32").infer(pixels).logits

    assert np.abs(by_torch - by_openvino).max() < 1e-3


def test_a_transformer_has_no_place_to_look_at(slides: Path, tmp_path: Path) -> None:
    torch.save(made("test_vit").state_dict(), tmp_path / "v.pth")
    torch.save(made("test_efficientnet").state_dict(), tmp_path / "c.pth")

    def explained(name: str, architecture: str) -> Result:
        options = ("--architecture", architecture, "--labels", LABELS, "--out", tmp_path / f"{name}-out")
        return cli("explain", tmp_path / name, slides / "0.png", *options)

    refused, convolutional = explained("v.pth", "timm/test_vit"), explained("c.pth", "timm/test_efficientnet")

    assert refused.exit_code == 1
    assert "timm/test_vit has no last layer with a height and a width" in refused.output
    assert convolutional.exit_code == 0, convolutional.output
    assert json.dumps([path.name for path in (tmp_path / "c.pth-out").iterdir()])
