"""Drawn stains in two palettes, and an engine that learned from one of them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

PALETTES = {
    "violet": ((238, 224, 232), (122, 70, 150), (205, 150, 180)),
    "brown": ((226, 214, 190), (120, 82, 44), (190, 160, 120)),
}
"""RGB of the ground, of nuclei and of cytoplasm."""
SIDE_PX = 64
OWN_IMAGES = 240
OTHERS = 48


def draw_stain(path: Path, palette: str, seed: int) -> Path:
    """Draw a field of cells in one of the palettes, whose colors vary a little from image to image."""
    random = np.random.default_rng([seed, *palette.encode()])
    ground, nucleus, cytoplasm = (np.array(color) + random.normal(0, 4, 3) for color in PALETTES[palette])
    rows, columns = np.mgrid[:SIDE_PX, :SIDE_PX]
    pixels = np.tile(ground, (SIDE_PX, SIDE_PX, 1))
    for _ in range(random.integers(2, 6)):
        row, column, radius = *random.uniform(8, SIDE_PX - 8, 2), random.uniform(5, 10)
        distance = np.hypot(rows - row, columns - column)
        pixels[distance < 1.7 * radius] = cytoplasm
        pixels[distance < radius] = nucleus
    pixels += random.normal(0, 3, pixels.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    return path


@pytest.fixture(scope="session")
def stains(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of PNGs: ``learned`` in two class folders, and ``own`` and ``other``, which no engine has seen."""
    folder = tmp_path_factory.mktemp("stains")
    for number in range(OWN_IMAGES):
        draw_stain(folder / "learned" / "ab"[number % 2] / f"{number}.png", "violet", number)
    for number in range(OTHERS):
        draw_stain(folder / "own" / f"{number}.png", "violet", 10_000 + number)
        draw_stain(folder / "other" / f"{number}.png", "brown", number)
    return folder


@pytest.fixture(scope="session")
def stain_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small convolutional network with random weights, for images of 64 x 64 pixels."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from batchcls.networks.architectures import SmallCnn

    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("checkpoints") / "cnn.pth"
    torch.save(SmallCnn(3).state_dict(), path)
    return path


def build_stain_engine(checkpoint: Path, out: Path, console: Console, novelty_images: Path | None) -> Path:
    """Build an engine with the labels a, b and c that learns from a folder of images."""
    from batchcls.building.build import BuildOptions, build_engine  # not on machines that only run engines

    values = {"architecture": "cnn", "labels": ("a", "b", "c"), "size_px": (SIDE_PX, SIDE_PX)}
    build_engine(checkpoint, out, BuildOptions(values=values, novelty_images=novelty_images), console)
    return out


@pytest.fixture(scope="session")
def stain_engine(stain_checkpoint: Path, stains: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An engine that learned how the folder ``learned`` looks."""
    console = Console(quiet=True)
    return build_stain_engine(stain_checkpoint, tmp_path_factory.mktemp("engines") / "e", console, stains / "learned")
