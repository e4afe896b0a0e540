"""Networks of torchvision, saved as a state_dict, and fed by the transforms of torchvision's own weights."""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import nn
from torchvision.models import get_model, get_model_weights

from benchmarks.agreement.prepared import LABELS, Prepared, write_recipe
from benchmarks.agreement.random_weights import probabilities, seed, spread_answers


def prepare(name: str, folder: Path, files: Sequence[Path]) -> Prepared:
    """A network of torchvision, saved in ``folder``, with its answers to ``files``."""
    seed()
    network = get_model(name, weights=None, num_classes=len(LABELS))
    transform = next(iter(get_model_weights(name))).transforms()
    images = torch.stack([transform(Image.open(file).convert("RGB")) for file in files])
    *_, last = [module for module in network.modules() if isinstance(module, nn.Linear)]
    spread_answers(network, last, images)
    torch.save(network.state_dict(), folder / "weights.pth")
    keys = {
        "size_px": transform.crop_size * 2,
        "resize": "shorter",
        "shorter_px": transform.resize_size[0],
        "interpolation": transform.interpolation.value,
        "mean": transform.mean,
        "std": transform.std,
    }
    return Prepared(
        "weights.pth", ["--architecture", name, *write_recipe(folder, **keys)], probabilities(network, images)
    )
