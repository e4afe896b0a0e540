"""Labels in or beside a trained file are used, and nobody's labels contradict them unheard."""

import json
import re
import shutil
import subprocess
import sys
import types
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torchvision
from click.testing import CliRunner, Result
from safetensors.torch import save_file
from torch import Tensor

from batchcls.cli import main
from batchcls.engine.manifest import Manifest
from batchcls.errors import RecipeError
from batchcls.networks.architectures import trainable_network
from batchcls.networks.label_folder import folder_labels_note
from batchcls.networks.recipe import labels_from_argument
from batchcls.networks.trained_file import load_trained_file
from tests.conftest import draw

LABELS = ("Pro", "Benign", "Early pre-B")
CLASS_TO_IDX = {"Benign": 1, "Early pre-B": 2, "Pro": 0}


def state() -> dict[str, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return trainable_network("cnn", 3).state_dict()


def built(source: Path, *options: str | Path) -> Result:
    arguments = ["build", source, "--out", source.parent / "engine", "--device", "cpu", "--architecture", "cnn"]
    if source.suffix == ".onnx":
        arguments = arguments[:-2]
    return CliRunner().invoke(main, [*map(str, arguments), *map(str, options)])


def labels_of_engine(source: Path) -> tuple[str, ...]:
    return Manifest.read(source.parent / "engine").labels


@pytest.mark.parametrize(
    "about",
    [
        {"class_to_idx": CLASS_TO_IDX},
        {"idx_to_class": {0: "Pro", 1: "Benign", 2: "Early pre-B"}},
        {"id2label": {"0": "Pro", "1": "Benign", "2": "Early pre-B"}},
        {"classes": list(LABELS)},
        {"class_names": LABELS},
        {"class_names": np.array(LABELS)},
        {"class_names": np.array(LABELS, object)},
        {"labels": [np.str_(label) for label in LABELS]},
        {"hyper_parameters": {"lr": 0.1, "classes": 3, "class_to_idx": CLASS_TO_IDX}},
        {"args": Namespace(lr=0.1, class_names=list(LABELS))},
        {"config": {"data": {"names": dict(enumerate(LABELS))}}},
    ],
    ids=str,
)
def test_labels_inside_a_checkpoint_are_used(about: dict[str, Any], tmp_path: Path) -> None:
    torch.save({"state_dict": state(), "epoch": 3, **about}, tmp_path / "m.pth")

    trained = load_trained_file(tmp_path / "m.pth", None, {})

    assert trained.recipe.labels == LABELS
    assert len(trained.notes) == 1
    assert "in 'm.pth': Pro, Benign, Early pre-B" in trained.notes[0]


class ListConfig:
    """A list of OmegaConf, which keeps its items in ``_content``."""

    def __init__(self, items: list[Any]) -> None:
        self._metadata, self._parent, self._content = None, None, items


class AnyNode:
    """A value of OmegaConf, which it keeps in ``_val``."""

    def __init__(self, value: Any) -> None:
        self._metadata, self._parent, self._val = None, None, value


class DictConfig(ListConfig):
    """A mapping of OmegaConf."""


def test_labels_in_a_configuration_of_omegaconf_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = {ListConfig: "omegaconf.listconfig", DictConfig: "omegaconf.dictconfig", AnyNode: "omegaconf.nodes"}
    monkeypatch.setitem(sys.modules, "omegaconf", types.ModuleType("omegaconf"))
    for kind, name in kinds.items():
        module = types.ModuleType(name)
        setattr(module, kind.__name__, kind)
        monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.setattr(kind, "__module__", name)
    labels: Any = ListConfig([AnyNode(label) for label in LABELS])
    config: Any = DictConfig({"data": DictConfig({"class_names": labels}), "lr": AnyNode(0.1)})
    torch.save({"state_dict": state(), "hyper_parameters": {"cfg": config}}, tmp_path / "m.pth")

    assert load_trained_file(tmp_path / "m.pth", None, {}).recipe.labels == LABELS


def class_folders(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).mkdir(parents=True)
    return folder


def test_the_folders_of_a_folder_are_labels_in_the_order_of_imagefolder(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "all4", "pro", "Benign", "Early", ".cache", "__MACOSX")
    (folder / "README.txt").touch()
    torch.save(state(), tmp_path / "m.pth")

    result = built(tmp_path / "m.pth", "--labels", folder)

    assert result.exit_code == 0, result.output
    assert labels_of_engine(tmp_path / "m.pth") == ("Benign", "Early", "pro")
    assert f"labels of the folders in {str(folder)!r}: Benign, Early, pro" in result.stderr
    for name in ("Benign", "Early", "pro"):
        draw(folder / name / "0.png")
    for name in (".cache", "__MACOSX"):
        (folder / name).rmdir()
    assert tuple(torchvision.datasets.ImageFolder(folder).classes) == ("Benign", "Early", "pro")


def test_folders_of_numbers_are_sorted_as_imagefolder_does_and_it_is_said(tmp_path: Path) -> None:
    labels = labels_from_argument(str(class_folders(tmp_path, *map(str, range(12)))))

    assert labels == ("0", "1", "10", "11", "2", "3", "4", "5", "6", "7", "8", "9")
    assert "sorted as text, as ImageFolder does, not by number: 0, 1, 10, 11, 2" in folder_labels_note("x", labels)
    assert "sorted" not in folder_labels_note("x", ("0", "1", "2"))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "has no folder in it, so it names no classes"),
        ((".git", "__MACOSX"), "has no folder in it"),
        (("train", "Val", "test"), r"are parts of a data set and no classes; .*--labels \S+/train"),
    ],
)
def test_a_folder_without_class_folders_is_refused(names: tuple[str, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=message):
        labels_from_argument(str(class_folders(tmp_path, *names)))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            "Pro,Benign",
            r"has 3 classes, 2 labels were named \[Pro, Benign\]; 'class_to_idx' in 'm.pth' says \[Pro, Ben",
        ),
        ("Pro,Benign,Pro", r"labels \['Pro', 'Benign', 'Pro'\] name 'Pro' more than once"),
    ],
)
def test_labels_of_another_number_or_twice_the_same_are_refused_with_both(
    labels: str, message: str, tmp_path: Path
) -> None:
    inside(tmp_path / "m.pth")

    result = built(tmp_path / "m.pth", "--labels", labels)

    assert result.exit_code == 1
    assert re.search(message, result.stderr), result.stderr


def test_a_build_says_where_its_labels_are_from(tmp_path: Path) -> None:
    torch.save({"net": state(), "class_to_idx": CLASS_TO_IDX}, tmp_path / "m.pth")

    result = built(tmp_path / "m.pth")

    assert result.exit_code == 0, result.output
    assert labels_of_engine(tmp_path / "m.pth") == LABELS
    assert result.stderr.splitlines()[0] == "labels of 'class_to_idx' in 'm.pth': Pro, Benign, Early pre-B"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("class_to_idx.json", json.dumps(CLASS_TO_IDX)),
        ("m.class_to_idx.json", json.dumps(CLASS_TO_IDX)),
        ("idx_to_class.json", json.dumps(dict(enumerate(LABELS)))),
        (
            "config.json",
            json.dumps({"model_type": "resnet", "id2label": dict(enumerate(LABELS)), "label2id": CLASS_TO_IDX}),
        ),
        ("labels.txt", "0 Pro\n1 Benign\n2 Early pre-B\n"),
        ("classes.txt", "Pro\nBenign\nEarly pre-B\n"),
    ],
)
@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_labels_beside_a_trained_file_are_used(kind: str, name: str, content: str, tmp_path: Path) -> None:
    source = tmp_path / f"m.{kind}"
    (save_file if kind == "safetensors" else torch.save)(state(), source)
    (tmp_path / name).write_text(content)

    trained = load_trained_file(source, None, {})

    assert trained.recipe.labels == LABELS
    assert trained.notes == (f"labels of {name!r} beside it: Pro, Benign, Early pre-B",)


def test_labels_beside_an_onnx_file_are_used(tiny_onnx: Path, tmp_path: Path) -> None:
    shutil.copyfile(tiny_onnx, tmp_path / "m.onnx")
    (tmp_path / "labels.txt").write_text("0 Pro\n1 Benign\n2 Early pre-B\n")

    result = built(tmp_path / "m.onnx")

    assert result.exit_code == 0, result.output
    assert labels_of_engine(tmp_path / "m.onnx") == LABELS
    assert "'labels.txt' beside it: Pro, Benign, Early pre-B" in result.stderr


def test_labels_in_the_metadata_of_an_onnx_file_are_used(tiny_onnx: Path, tmp_path: Path) -> None:
    model = onnx.load(tiny_onnx)
    onnx.helper.set_model_props(model, {"names": str(dict(enumerate(LABELS))), "task": "classify"})
    onnx.save(model, tmp_path / "m.onnx")

    result = built(tmp_path / "m.onnx")
    refused = built(tmp_path / "m.onnx", "--labels", "Benign,Early pre-B,Pro", "--overwrite")

    assert result.exit_code == 0, result.output
    assert labels_of_engine(tmp_path / "m.onnx") == LABELS
    assert refused.exit_code == 1
    copying = re.search(r"copy it without its metadata: (import onnx; .*)", refused.stderr)
    assert copying is not None
    subprocess.run([sys.executable, "-c", copying[1]], check=True)
    assert built(tmp_path / "m_network.onnx", "--labels", "Benign,Early pre-B,Pro", "--overwrite").exit_code == 0


def inside(path: Path) -> None:
    torch.save({"state_dict": state(), "class_to_idx": CLASS_TO_IDX}, path)


def beside(path: Path) -> None:
    torch.save(state(), path)
    (path.parent / "class_to_idx.json").write_text(json.dumps(CLASS_TO_IDX))


@pytest.mark.parametrize("labels", ["Benign,Early pre-B,Pro", "Pro,Benign,Late"])
@pytest.mark.parametrize(
    ("write", "source", "remedy"),
    [
        (inside, "'class_to_idx' in 'm.pth'", "torch.save(model.state_dict(), '"),
        (beside, "'class_to_idx.json' beside it", "move 'class_to_idx.json' elsewhere"),
    ],
)
def test_other_labels_than_the_known_ones_are_refused_and_both_shown(
    write: Callable[[Path], None], source: str, remedy: str, labels: str, tmp_path: Path
) -> None:
    write(tmp_path / "m.pth")

    result = built(tmp_path / "m.pth", "--labels", labels)

    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert f"the labels that were named are [{labels.replace(',', ', ')}], but {source} says [Pro, Benign, " in line
    assert remedy in line
    assert f"torch.save(model.state_dict(), {str(tmp_path / 'm.pth')!r})" not in line
    assert not (tmp_path / "engine").exists()


def test_labels_that_only_a_sign_tells_apart_are_compared_with_it(tmp_path: Path) -> None:
    torch.save({"state_dict": state(), "classes": ["CD4+", "CD4-", "CD8"]}, tmp_path / "m.pth")

    result = built(tmp_path / "m.pth", "--labels", "CD4-,CD4+,CD8")

    assert result.exit_code == 1
    assert "are [CD4-, CD4+, CD8], but 'classes' in 'm.pth' says [CD4+, CD4-, CD8]" in result.stderr


def test_labels_inside_and_beside_that_differ_are_refused(tmp_path: Path) -> None:
    inside(tmp_path / "m.pth")
    (tmp_path / "classes.txt").write_text("Benign\nEarly pre-B\nPro\n")

    result = built(tmp_path / "m.pth")

    assert result.exit_code == 1
    assert (
        "'class_to_idx' in 'm.pth' says [Pro, Benign, Early pre-B], but 'classes.txt' beside it says" in result.stderr
    )


def test_the_same_labels_in_other_letters_are_the_ones_that_were_named(tmp_path: Path) -> None:
    inside(tmp_path / "m.pth")

    trained = load_trained_file(tmp_path / "m.pth", None, {"labels": ("pro", "BENIGN", "Early Pre B")})

    assert trained.recipe.labels == ("pro", "BENIGN", "Early Pre B")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labels.txt", "one\ntwo\n"),
        ("config.json", '{"lr": 0.1}'),
        ("config.json", '{"id2label": {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}}'),
        ("labels.json", "{{{"),
        ("classes.txt", "\x00"),
        ("class_to_idx.json", '{"a": 1, "b": 2, "c": 3}'),
    ],
)
def test_what_is_beside_and_tells_nothing_of_this_network_does_not_matter(
    name: str, content: str, tmp_path: Path
) -> None:
    torch.save(state(), tmp_path / "m.pth")
    (tmp_path / name).write_text(content)

    assert load_trained_file(tmp_path / "m.pth", None, {"labels": ("a", "b", "c")}).recipe.labels == ("a", "b", "c")


def test_a_file_beside_that_should_hold_labels_is_named_where_labels_are_missing(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "m.pth")
    (tmp_path / "idx_to_class.json").write_text('{"1": "a", "2": "b", "3": "c"}')

    result = built(tmp_path / "m.pth")

    assert result.exit_code == 1
    assert "none was named; labels file" in result.stderr
    assert "its positions are not 0 to 2, each once" in result.stderr


@pytest.mark.parametrize(
    ("name", "labels"),
    [("m.class_to_idx.json", ("2", "0", "1")), ("idx_to_class.json", ("1", "2", "0"))],
)
def test_labels_that_are_numbers_are_read_as_the_name_of_their_file_says(
    name: str, labels: tuple[str, ...], tmp_path: Path
) -> None:
    torch.save(state(), tmp_path / "m.pth")
    (tmp_path / name).write_text('{"0": "1", "1": "2", "2": "0"}')
    (tmp_path / "unclear.json").write_text('{"0": "1", "1": "2", "2": "0"}')

    assert load_trained_file(tmp_path / "m.pth", None, {}).recipe.labels == labels
    with pytest.raises(RecipeError, match="it can be read in two ways: labels by position"):
        labels_from_argument(str(tmp_path / "unclear.json"))


def test_a_small_checkpoint_of_endless_references_is_read_soon(tmp_path: Path) -> None:
    endless: dict[str, Any] = {"a": 1}
    for _ in range(40):
        endless = dict.fromkeys(("names", "classes", "labels", "label_names"), endless)
    about = {"class_to_idx": {"a": endless}, "names": endless}
    torch.save({"state_dict": state(), **about}, tmp_path / "model.pth")
    assert built(tmp_path / "model.pth", "--labels", "a,b,c").exit_code == 0
