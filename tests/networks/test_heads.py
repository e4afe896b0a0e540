"""Heads that people put in place of a network's last layer are read, as far as a file tells what they compute."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from batchcls.errors import CheckpointError
from batchcls.networks.checkpoint import load_network
from batchcls.networks.heads import Head
from batchcls.networks.trained_file import load_trained_file
from tests.networks.test_checkpoint import answers_equal, randomised

LABELS = {"labels": ("a", "b", "c")}


def saved(network: nn.Module, place: str, head: nn.Module, path: Path) -> nn.Module:
    network.set_submodule(place, head)
    torch.save(randomised(network).state_dict(), path)
    return network


def notes(head: nn.Module, path: Path) -> tuple[str, ...]:
    """What is said of a MobileNetV2 with another head, whose batch normalizations have seen no image."""
    network = torchvision.models.mobilenet_v2()
    network.classifier = head
    torch.save(network.state_dict(), path)
    return load_trained_file(path, None, {**LABELS, "architecture": "mobilenet_v2"}).notes


@pytest.mark.parametrize(
    ("architecture", "place", "head"),
    [
        ("mobilenet_v2", "classifier", lambda: [nn.Dropout(), nn.Linear(1280, 9), nn.ReLU(), nn.Linear(9, 3)]),
        ("mobilenet_v2", "classifier.1", lambda: [nn.Linear(1280, 9), nn.ReLU(), nn.Dropout(), nn.Linear(9, 3)]),
        (
            "mobilenet_v2",
            "classifier",
            lambda: [nn.BatchNorm1d(1280), nn.Linear(1280, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 3)],
        ),
        ("mobilenet_v2", "classifier", lambda: [nn.LayerNorm(1280), nn.Linear(1280, 3)]),
        ("mobilenet_v3_small", "classifier", lambda: [nn.Linear(576, 9), nn.Linear(9, 3)]),
    ],
)
def test_a_head_of_several_layers_is_read(
    architecture: str, place: str, head: Callable[[], list[nn.Module]], tmp_path: Path
) -> None:
    trained = saved(torchvision.models.get_model(architecture), place, nn.Sequential(*head()), tmp_path / "a.pth")

    network = load_network(tmp_path / "a.pth", architecture)

    assert network.classes == 3
    assert answers_equal(network.module, trained, 1e-6)


def test_an_activation_that_the_file_does_not_name_is_warned_of(tmp_path: Path) -> None:
    head = nn.Sequential(nn.Linear(1280, 9), nn.ReLU(), nn.Dropout(), nn.Linear(9, 3))

    (warning,) = notes(head, tmp_path / "a.pth")

    assert "'classifier' is read as Linear(1280, 9), ReLU (assumed), Linear(9, 3)" in warning
    assert "torch.onnx.export(model, (torch.zeros(2, 3, 224, 224),), 'model.onnx', dynamo=True" in warning


@pytest.mark.parametrize("middle", [[nn.Dropout()], []])
def test_a_head_of_one_linear_needs_no_warning(middle: list[nn.Module], tmp_path: Path) -> None:
    assert notes(nn.Sequential(*middle, nn.Linear(1280, 3)), tmp_path / "a.pth") == ()


@pytest.mark.parametrize(
    "head",
    [
        # a ReLU may stand before or after the normalization
        nn.Sequential(nn.Linear(1280, 9), nn.ReLU(), nn.BatchNorm1d(9), nn.Dropout(), nn.Linear(9, 3)),
        nn.Sequential(nn.Linear(1280, 9), nn.PReLU(), nn.Linear(9, 3)),
        nn.Sequential(nn.Linear(640, 9), nn.ReLU(), nn.Linear(9, 3)),
        nn.Sequential(nn.Linear(1280, 9), nn.ReLU(), nn.Linear(8, 3)),
        nn.ModuleDict({"first": nn.Linear(1280, 9), "second": nn.Linear(9, 3)}),
    ],
)
def test_a_head_that_the_file_does_not_tell_is_refused(head: nn.Module, tmp_path: Path) -> None:
    saved(torchvision.models.mobilenet_v2(), "classifier", head, tmp_path / "a.pth")

    with pytest.raises(CheckpointError, match=r"does not fit 'mobilenet_v2': .* 'model\.onnx', dynamo=True"):
        load_network(tmp_path / "a.pth", "mobilenet_v2")


def test_the_layers_of_a_head_may_come_in_any_order() -> None:
    shapes = {"fc.10.weight": (3, 9), "fc.10.bias": (3,), "fc.2.weight": (9, 5), "other.weight": (2, 2)}

    head = Head.read("fc", shapes)

    assert head is not None
    assert [layer.name for layer in head.layers] == ["2", "10"]
    assert (head.features, head.classes, head.activations) == (5, 3, (3,))
    assert not head.layers[0].has_bias
