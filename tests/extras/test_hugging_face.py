"""Folders of Hugging Face become engines that answer as transformers and timm do, and cannot lead elsewhere."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from batchcls.building.hugging_face.folder import open_folder
from batchcls.building.hugging_face.library import transformers_library
from batchcls.building.hugging_face.preprocessing import recipe_of_processor
from batchcls.engine.manifest import Manifest
from batchcls.networks.recipe import Recipe
from batchcls.networks.transforms import input_transform
from tests.conftest import draw
from tests.extras.answers import answered, assert_alike, built, drawn_images, refusal

transformers = transformers_library()
SIDE = 32
NAMES = {0: "Benign", 1: "Early", 2: "Pre", 3: "Pro"}
TRANSFORMER = {
    "image_size": SIDE,
    "patch_size": 8,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
NETWORKS: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "vit": (TRANSFORMER, "ViTImageProcessor", {"size": {"height": SIDE, "width": SIDE}}),
    "resnet": (
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]},
        "ConvNextImageProcessor",
        {"size": {"shortest_edge": SIDE}, "crop_pct": 0.875},
    ),
    "convnext": (
        {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "image_size": SIDE},
        "ConvNextImageProcessor",
        {"size": {"shortest_edge": SIDE}, "crop_pct": 0.8},
    ),
    "swin": (
        {"image_size": SIDE, "patch_size": 2, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4},
        "ViTImageProcessor",
        {"size": {"height": SIDE, "width": SIDE}, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.2, 0.3, 0.4]},
    ),
}
PROCESSORS: list[tuple[str, dict[str, Any]]] = [
    ("ViTImageProcessor", {"size": {"height": 48, "width": 40}, "resample": 3}),
    ("ViTImageProcessor", {"size": {"height": 48, "width": 48}, "do_normalize": False}),
    ("ViTImageProcessor", {"size": {"height": 48, "width": 48}, "do_rescale": False, "image_mean": [100.0] * 3}),
    ("BeitImageProcessor", {"size": {"height": 48, "width": 48}, "do_center_crop": False}),
    ("DeiTImageProcessor", {"size": {"height": 48, "width": 48}, "do_center_crop": False}),
    ("MobileNetV2ImageProcessor", {"size": {"shortest_edge": 72}, "crop_size": {"height": 64, "width": 64}}),
    ("MobileViTImageProcessor", {"size": {"shortest_edge": 72}, "crop_size": {"height": 64, "width": 64}}),
    ("EfficientNetImageProcessor", {"size": {"height": 48, "width": 48}, "image_std": [0.4, 0.5, 0.6]}),
    ("EfficientNetImageProcessor", {"size": {"height": 48, "width": 48}, "rescale_offset": True, "include_top": False}),
    ("BitImageProcessor", {"size": {"shortest_edge": 72}, "crop_size": {"height": 64, "width": 64}, "resample": 3}),
    ("ConvNextImageProcessor", {"size": {"shortest_edge": 384}}),
]


def network_of(kind: str, **configuration: Any) -> Any:
    """A small classifier of transformers with random weights, whose answers differ between images."""
    settings = transformers.CONFIG_MAPPING[kind](
        **NETWORKS[kind][0], id2label=NAMES, label2id={name: number for number, name in NAMES.items()}, **configuration
    )
    mapping = transformers.models.auto.modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = getattr(transformers, mapping[kind])(settings).eval()
        for tensor in network.parameters():
            torch.nn.init.normal_(tensor, std=0.2) if tensor.ndim > 1 else None
    return network


def saved(kind: str, folder: Path, **configuration: Any) -> Any:
    """A network of transformers, saved in ``folder`` with its image processor."""
    network = network_of(kind, **configuration)
    network.save_pretrained(folder)
    getattr(transformers, NETWORKS[kind][1])(**NETWORKS[kind][2]).save_pretrained(folder)
    return network


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return drawn_images(tmp_path_factory.mktemp("images"))


def probabilities(logits: torch.Tensor) -> npt.NDArray[np.float32]:
    return np.asarray(logits.detach().softmax(1).numpy())


@pytest.mark.parametrize("kind", NETWORKS)
def test_an_engine_answers_as_transformers_does(kind: str, images: list[Path], tmp_path: Path) -> None:
    network = saved(kind, tmp_path / "net")

    result = built(tmp_path / "net", tmp_path / "engine", "--precision", "fp32")

    assert result.exit_code == 0, result.output
    assert "(from preprocessor_config.json)" in result.stderr
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "net")
    inputs = processor([Image.open(path).convert("RGB") for path in images], return_tensors="pt")
    expected = probabilities(network(**inputs).logits)
    assert_alike(answered(tmp_path / "engine", images[0].parent, tmp_path / "o.parquet"), expected)
    manifest = Manifest.read(tmp_path / "engine")
    assert manifest.labels == tuple(NAMES.values())
    assert manifest.architecture.lower() == f"transformers/{kind}"


@pytest.mark.parametrize(("name", "settings"), PROCESSORS)
def test_a_recipe_does_what_an_image_processor_does(name: str, settings: dict[str, Any], tmp_path: Path) -> None:
    """Of images whose crops begin at whole pixels; elsewhere transformers rounds otherwise than torchvision."""
    processor = getattr(transformers, name)(**settings)
    network_of("vit").save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)

    preprocess = Recipe().with_values(recipe_of_processor(open_folder(tmp_path))).preprocess

    for number, size in enumerate([(132, 99), (99, 132), (64, 65), (400, 300)]):
        image = Image.open(draw(tmp_path / f"{number}.png", number, size)).convert("RGB")
        expected = np.asarray(processor(image, return_tensors="np")["pixel_values"][0])
        actual = input_transform(preprocess)(image).numpy()
        std = np.reshape(preprocess.std, (3, 1, 1))
        assert actual.shape == expected.shape
        assert np.abs((actual - expected) * std).mean() < 1 / 255


def test_a_network_of_timm_is_read_by_its_own_configuration(images: list[Path], tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = timm.create_model("test_vit", num_classes=4).eval()
        for tensor in network.parameters():
            torch.nn.init.normal_(tensor, std=0.1) if tensor.ndim > 1 else None
    configuration = {"num_classes": 4, "label_names": ["a", "b", "c", "d"], "crop_pct": 0.9, "crop_mode": "center"}
    timm.models.save_for_hf(network, tmp_path / "net", model_config=configuration)

    result = built(tmp_path / "net", tmp_path / "engine", "--precision", "fp32")

    assert result.exit_code == 0, result.output
    configured = json.loads((tmp_path / "net" / "config.json").read_text())["pretrained_cfg"]
    transform = timm.data.create_transform(**timm.data.resolve_data_config(pretrained_cfg=configured))
    inputs = torch.stack([transform(Image.open(path).convert("RGB")) for path in images])
    ours = answered(tmp_path / "engine", images[0].parent, tmp_path / "o.parquet")
    assert_alike(ours, probabilities(network(inputs)))
    manifest = Manifest.read(tmp_path / "engine")
    assert (manifest.architecture, manifest.labels) == ("timm/test_vit", ("a", "b", "c", "d"))


def test_weights_in_several_files_or_of_pytorch_are_the_same_network(tmp_path: Path) -> None:
    network = saved("vit", tmp_path / "one")
    network.save_pretrained(tmp_path / "several", max_shard_size="30KB")
    saved("vit", tmp_path / "pytorch")
    torch.save(load_file(tmp_path / "one" / "model.safetensors"), tmp_path / "pytorch" / "pytorch_model.bin")
    (tmp_path / "pytorch" / "model.safetensors").unlink()

    folders = [open_folder(tmp_path / name) for name in ("one", "several", "pytorch")]

    assert [len(folder.weights) > 1 for folder in folders] == [False, True, False]
    first, *others = [folder.tensors() for folder in folders]
    for tensors in others:
        assert tensors.keys() == first.keys()
        assert all(torch.equal(tensors[name], first[name]) for name in first)


def test_without_a_preprocessor_and_names_both_are_asked_for(images: list[Path], tmp_path: Path) -> None:
    network_of("vit", num_labels=4).save_pretrained(tmp_path / "net")
    configuration = json.loads((tmp_path / "net" / "config.json").read_text())
    configuration["id2label"] = {str(number): f"LABEL_{number}" for number in range(4)}
    configuration["label2id"] = {f"LABEL_{number}": number for number in range(4)}
    (tmp_path / "net" / "config.json").write_text(json.dumps(configuration))

    assert "has 4 classes, none was named" in refusal(tmp_path / "net", tmp_path)
    result = built(tmp_path / "net", tmp_path / "engine", "--labels", "a,b,c,d")

    assert result.exit_code == 0, result.output
    assert "32x32, stretched, ImageNet mean and std (assumed; --recipe changes it)" in result.stderr


def configured(**values: Any) -> Callable[[Path], None]:
    """A change of ``config.json``."""

    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def preprocessed(**values: Any) -> Callable[[Path], None]:
    """A change of ``preprocessor_config.json``."""

    def change(folder: Path) -> None:
        path = folder / "preprocessor_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def index(**places: str) -> Callable[[Path], None]:
    """Weights divided by an index that names these files."""

    def change(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))

    return change


def link(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "elsewhere")
    (folder / "model.safetensors").symlink_to(folder.parent / "elsewhere")


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"weight": torch.zeros(1), "code": open}, folder / "pytorch_model.bin")


def other_weights(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["classifier.weights"] = tensors.pop("classifier.weight")
    save_file(tensors, folder / "model.safetensors")


def broken_weights(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["classifier.weight"][0, 0] = torch.nan
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (configured(auto_map={"AutoModel": "evil.Model"}), "names code of its own, which is never run"),
        (configured(architectures=["ViTModel"]), "is no image classifier of transformers"),
        (configured(architectures=["BertForSequenceClassification"], model_type="bert"), "is no image classifier"),
        (configured(architectures="ViTForImageClassification"), "is no image classifier"),
        (configured(model_type="../../evil"), "is no image classifier"),
        (configured(problem_type="multi_label_classification"), "gives an image several labels at once"),
        (configured(quantization_config={"quant_method": "bitsandbytes"}), "is quantized"),
        (configured(use_pretrained_backbone=True, backbone="hub/elsewhere"), "takes a part from another folder"),
        (configured(hidden_size=1 << 40), "says hidden_size 1099511627776, beyond"),
        (configured(num_hidden_layers=100_000), "says num_hidden_layers 100000, beyond"),
        (configured(hidden_size=1 << 14), "bytes of weights for a network of"),
        (configured(hidden_act="os.system"), "is no network that transformers can make"),
        (configured(num_channels=1), "holds other weights than ViTForImageClassification has"),
        (preprocessed(image_processor_type="Evil"), "no image processor of transformers"),
        (preprocessed(auto_map={"AutoImageProcessor": "evil.Processor"}), "no image processor of transformers"),
        (preprocessed(do_resize=False), "asks for what no recipe can say"),
        (preprocessed(size={"height": "x"}), "preprocessor_config.json|image processor"),
        (preprocessed(size={"height": 1 << 30, "width": 1 << 30}), "asks for 1,073,741,824 pixels"),
        (index(weight="../secret.safetensors"), "must name files of its own folder"),
        (index(weight="/etc/passwd"), "must name files of its own folder"),
        (index(), "must name files of its own folder"),
        (index(weight="missing.safetensors"), "is missing"),
        (link, "is a link to .*elsewhere', outside its folder"),
        (pickled, "batchcls never runs code|never runs"),
        (other_weights, "missing: classifier.weight; unexpected: classifier.weights"),
        (broken_weights, "NaN or infinite"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\xff" * 100), "cannot be read"),
        (lambda folder: (folder / "config.json").write_text("[" * 100_000), "cannot be read"),
        (lambda folder: (folder / "model.safetensors").unlink(), "holds neither model.safetensors nor"),
    ],
)
def test_a_folder_that_asks_for_more_than_a_network_is_refused(change: Any, message: str, tmp_path: Path) -> None:
    saved("vit", tmp_path / "net")
    (tmp_path / "secret.safetensors").write_bytes((tmp_path / "net" / "model.safetensors").read_bytes())
    change(tmp_path / "net")

    line = refusal(tmp_path / "net", tmp_path)

    assert re.search(message, line), line


def test_a_build_fetches_nothing_and_leaves_nothing_in_the_home(tmp_path: Path) -> None:
    saved("vit", tmp_path / "net")
    (tmp_path / "home").mkdir()

    process = subprocess.run(
        [sys.executable, "-m", "batchcls", "build", tmp_path / "net", "--out", tmp_path / "engine", "--device", "cpu"],
        env={**os.environ, "HOME": str(tmp_path / "home"), "HTTPS_PROXY": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert process.returncode == 0, process.stderr
    assert [path for path in (tmp_path / "home").rglob("*") if path.is_file()] == []
