"""A network with set weights that detects bright squares, and images of such squares."""

from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import nn

from batchcls.networks.architectures import SmallCnn

LABELS = "square,nothing"
RECIPE = 'labels = ["square", "nothing"]\nmean = [0.0, 0.0, 0.0]\nstd = [1.0, 1.0, 1.0]\n'
SIDE = 48


def draw_squares(path: Path, *squares: tuple[int, int], size: tuple[int, int] = (224, 224), side: int = SIDE) -> Path:
    """A gray field with bright squares at places given by left and top."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size, (70, 70, 70))
    for left, top in squares:
        ImageDraw.Draw(image).rectangle((left, top, left + side - 1, top + side - 1), fill="white")
    image.save(path)
    return path


def detector(sure: float = 20) -> nn.Module:
    """A network that answers ``square`` where anything is bright, and ``nothing`` elsewhere; its weights are set."""
    network = SmallCnn(2).eval()
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.ndim == 4:
                value.zero_()
                value[0, : 3 if name == "features.0.weight" else 1, 1, 1] = 1 / 3 if value.shape[1] == 3 else 1
        network.get_parameter("features.1.bias")[0] = -0.5
        network.fc.weight.zero_()
        network.fc.weight[:, 0] = torch.tensor([sure, -sure])
        network.fc.bias.copy_(torch.tensor([0, 0.5]))
    return network
