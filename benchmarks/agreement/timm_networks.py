"""Networks of timm, saved as a state_dict, and fed by timm's own transforms."""

from collections.abc import Sequence
from pathlib import Path

import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config

from benchmarks.agreement.prepared import LABELS, Prepared
from benchmarks.agreement.random_weights import probabilities, seed, spread_answers


def prepare(name: str, folder: Path, files: Sequence[Path]) -> Prepared:
    """A network of timm, saved in ``folder``, with its answers to ``files``."""
    seed()
    network = timm.create_model(name, pretrained=False, num_classes=len(LABELS))
    transform = create_transform(**resolve_data_config({}, model=network))
    images = torch.stack([transform(Image.open(file).convert("RGB")) for file in files])
    spread_answers(network, network.get_classifier(), images)
    torch.save(network.state_dict(), folder / "weights.pth")
    return Prepared("weights.pth", ["--architecture", f"timm/{name}"], probabilities(network, images))
