"""Weights of a variant that has another network's names are warned of."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from batchcls.networks.trained_file import load_trained_file
from tests.conftest import DATA

LABELS = ("a", "b", "c", "d")


def used(network: nn.Module) -> dict[str, Tensor]:
    """The weights of a network that has seen images, and recorded what they are like within."""
    generator = torch.Generator().manual_seed(2)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None
    with torch.no_grad():
        coarse = torch.randn((4, 3, 8, 8), generator=generator)
        network.train()(nn.functional.interpolate(coarse, size=64, mode="bilinear"))
    return dict(network.state_dict())


def network(architecture: str, activation: Callable[[], nn.Module] | None = None) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        module: nn.Module = torchvision.models.get_model(architecture, weights=None, num_classes=4)
    for layer in module.modules():
        if activation and hasattr(layer, "relu"):
            layer.relu = activation()
    return module


def notes(content: Any, folder: Path, architecture: str = "resnet18") -> tuple[str, ...]:
    torch.save(content, folder / "m.pth")
    return load_trained_file(folder / "m.pth", None, {"labels": LABELS, "architecture": architecture}).notes


@pytest.mark.parametrize("architecture", ["resnet18", "mobilenet_v2"])
def test_weights_that_are_computed_as_they_were_trained_are_not_warned_of(architecture: str, tmp_path: Path) -> None:
    assert notes(used(network(architecture)), tmp_path, architecture) == ()


def test_weights_that_never_saw_an_image_are_not_warned_of(tmp_path: Path) -> None:
    assert notes(network("resnet18").state_dict(), tmp_path) == ()


@pytest.mark.parametrize("activation", [nn.SiLU, nn.Tanh])
def test_another_activation_behind_the_same_names_is_warned_of(
    activation: Callable[[], nn.Module], tmp_path: Path
) -> None:
    (warning,) = notes(used(network("resnet18", activation)), tmp_path)

    assert "its batch normalizations recorded other activations than resnet18" in warning
    assert "one of timm's, name that one with --architecture, or export it" in warning


@pytest.mark.parametrize("said", ["resnetblur18", "timm/resnetaa34d.sw_in12k", "resnet34"])
def test_the_name_of_another_architecture_in_the_file_is_warned_of(said: str, tmp_path: Path) -> None:
    (warning,) = notes({"state_dict": network("resnet18").state_dict(), "arch": said}, tmp_path)

    assert f"the file says arch {said!r}, and is taken for resnet18; compare its answers" in warning


@pytest.mark.parametrize(
    "said", ["resnet18", "ResNet-18", "timm/resnet18.a1_in1k", "my_cells", "resnet_cells_2", "tv_resnet18"]
)
def test_other_names_are_not_warned_of(said: str, tmp_path: Path) -> None:
    assert notes({"state_dict": network("resnet18").state_dict(), "hparams": {"model_name": said}}, tmp_path) == ()


def test_a_network_trained_on_slides_is_not_warned_of() -> None:
    path = DATA.parent / "models" / "googlenet_all4.pth"
    if not path.exists():
        pytest.skip(f"{path} is not there")

    assert load_trained_file(path, None, {"labels": LABELS}).notes == ()
