"""Grad-CAM: the maps are those of the paper."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from batchcls.explanation.cam_layers import CAM_LAYERS
from batchcls.explanation.grad_cam import GradCam, stands_out
from batchcls.networks.architectures import empty_network
from batchcls.networks.checkpoint import load_network
from batchcls.networks.preprocess import Preprocess


def random_network(architecture: str) -> nn.Module:
    """As `batchcls.networks.checkpoint` makes it, but with random weights."""
    network = empty_network(architecture, 3).to_empty(device="cpu").requires_grad_(False)
    generator = torch.Generator().manual_seed(5)
    for name, value in network.state_dict().items():
        if value.ndim > 1:
            value.uniform_(-1, 1, generator=generator).mul_((6 / value[0].numel()) ** 0.5)
        else:
            value.fill_(1 if name.endswith(("weight", "running_var")) else 0)
    return network


@pytest.mark.parametrize("architecture", CAM_LAYERS)
def test_every_architecture_has_the_map_that_the_paper_defines(architecture: str) -> None:
    network, side = random_network(architecture), 128  # which all take, and soon
    pixels = np.random.default_rng(3).integers(0, 256, (1, side, side, 3), np.uint8)
    held: list[torch.Tensor] = []

    def hold(layer: nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
        held.append(output.requires_grad_())
        return output.clone()

    hook = network.get_submodule(CAM_LAYERS[architecture]).register_forward_hook(hold)
    logits = network((torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25)[0]
    hook.remove()
    gradients = [torch.autograd.grad(logits[label], held, retain_graph=True)[0] for label in range(3)]
    cells = [(gradient.mean(dim=(2, 3), keepdim=True) * held[0]).sum(dim=1).relu()[0] for gradient in gradients]
    label = max(range(3), key=lambda label: float(cells[label].detach().max()))
    expected = nn.functional.interpolate(cells[label].detach()[None, None], (side, side), mode="bilinear")[0, 0].numpy()

    preprocess = Preprocess(size_px=(side, side), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    (heat,) = GradCam(network, architecture, preprocess).maps(pixels, [label])

    assert heat.max() == 1
    np.testing.assert_allclose(heat, expected / expected.max(), atol=2e-3)


def test_a_batch_has_the_maps_of_its_images_alone(checkpoint: Path) -> None:
    grad_cam = GradCam(load_network(checkpoint).module, "cnn", Preprocess(mean=(0, 0, 0), std=(1, 1, 1)))
    pixels = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), np.uint8)
    pixels[1] = 0

    together = grad_cam.maps(pixels, [0, 0, 1])

    for row, label in enumerate([0, 0, 1]):
        np.testing.assert_allclose(together[row], grad_cam.maps(pixels[row : row + 1], [label])[0], atol=1e-5)
    assert [stands_out(heat) for heat in together] == [True, False, False]
