"""Networks whose first layer takes one channel are built for gray images."""

from pathlib import Path

import pytest
import torch
import torchvision

from batchcls.errors import CheckpointError
from batchcls.networks.trained_file import load_trained_file
from tests.networks.test_checkpoint import randomised

LABELS = {"labels": ("a", "b", "c")}


@pytest.mark.parametrize("architecture", ["", "shufflenet_v2_x0_5"])
def test_a_first_layer_of_one_channel_takes_gray_images(architecture: str, tmp_path: Path) -> None:
    trained = torchvision.models.shufflenet_v2_x0_5(num_classes=3)
    trained.conv1[0] = torch.nn.Conv2d(1, 24, 3, 2, 1, bias=False)
    torch.save(randomised(trained).state_dict(), tmp_path / "a.pth")
    images = torch.randn((2, 1, 64, 64), generator=torch.Generator().manual_seed(5))

    opened = load_trained_file(tmp_path / "a.pth", None, {**LABELS, "architecture": architecture})

    preprocess = opened.recipe.preprocess
    assert (preprocess.channels, len(preprocess.mean)) == ("L", 1)
    with torch.inference_mode():
        assert torch.equal(opened.network.module(images), trained(images))


def test_a_recipe_of_three_channels_contradicts_a_network_of_one(tmp_path: Path) -> None:
    trained = torchvision.models.shufflenet_v2_x0_5(num_classes=3)
    trained.conv1[0] = torch.nn.Conv2d(1, 24, 3, 2, 1, bias=False)
    torch.save(trained.state_dict(), tmp_path / "a.pth")
    (tmp_path / "r.toml").write_text("channels = 'BGR'\n")

    with pytest.raises(CheckpointError, match=r"takes images of 1 channel\(s\), and the recipe says channels 'BGR'"):
        load_trained_file(tmp_path / "a.pth", tmp_path / "r.toml", LABELS)
