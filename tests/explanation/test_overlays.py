"""Overlays: hot where the evidence is, and nowhere else."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from batchcls.explanation.overlays import overlay
from tests.explanation.commandline import explain, table
from tests.explanation.detector import RECIPE, SIDE, detector, draw_squares

GAP, LINE = 8, 18
CELL = 64
"""Side in pixels, on a picture of 448, of each of the 7 cells of the network's last layer."""


def heat_of(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """What is colored in the picture on the right: how much, and which pixels the most, of images that were gray."""
    whole = np.asarray(Image.open(path).convert("RGB"), np.int16)
    picture = whole[:-LINE, (whole.shape[1] + GAP) // 2 :]
    color = picture.max(axis=2) - picture.min(axis=2)
    return color, np.argwhere(color >= 0.95 * color.max())


@pytest.mark.parametrize(
    ("place", "suffix"),
    [
        ((10, 10), ".pth"),
        ((160, 20), ".pth"),
        ((88, 88), ".safetensors"),
        ((20, 165), ".pth"),
        ((170, 170), ".safetensors"),
    ],
)
def test_the_map_is_hottest_where_the_square_is(
    place: tuple[int, int], suffix: str, recipe: Path, tmp_path: Path
) -> None:
    slide, model, out = draw_squares(tmp_path / "s.png", place), tmp_path / f"m{suffix}", tmp_path / "out"
    (torch.save if suffix == ".pth" else save_file)(detector().state_dict(), model)

    result = explain(model, slide, "--recipe", recipe, "--out", out)

    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0] == f"1 explained, 0 unreadable -> {out}"
    color, hottest = heat_of(out / "0001_s.cam.png")
    assert color.shape == (448, 448)
    left, top = (2 * value for value in place)
    row, column = hottest.mean(axis=0)
    assert top <= row < top + 2 * SIDE
    assert left <= column < left + 2 * SIDE
    assert (hottest >= (top - CELL, left - CELL)).all()
    assert (hottest < (top + 2 * SIDE + CELL, left + 2 * SIDE + CELL)).all()
    assert color[-1 if row < 224 else 0, -1 if column < 224 else 0] <= 2  # the far corner stays gray


@pytest.mark.parametrize(
    ("more", "place", "shape", "expected"),
    [
        ("", (500, 60), (336, 448), (384, 76)),  # stretched: the whole field, in its own proportions
        ('resize = "shorter"\nshorter_px = 320\n', (180, 120), (448, 448), (102, 128)),
    ],
)
def test_the_map_lies_on_the_part_that_the_network_sees(
    more: str,
    place: tuple[int, int],
    shape: tuple[int, int],
    expected: tuple[int, int],
    checkpoint: Path,
    tmp_path: Path,
) -> None:
    slide = draw_squares(tmp_path / "s.png", place, size=(640, 480), side=96)
    (tmp_path / "recipe.toml").write_text(RECIPE + more)

    result = explain(checkpoint, slide, "--recipe", tmp_path / "recipe.toml", "--out", tmp_path / "out")

    assert result.exit_code == 0, result.output
    color, hottest = heat_of(tmp_path / "out" / "0001_s.cam.png")
    assert color.shape == shape
    column, row = expected
    assert np.abs(hottest.mean(axis=0) - (row, column)).max() < CELL / 2
    with Image.open(tmp_path / "out" / "0001_s.cam.png") as both:
        plain = np.asarray(both.crop((0, 0, shape[1], shape[0])).convert("L"))
    assert np.abs(np.argwhere(plain > 200).mean(axis=0) - (row, column)).max() < 3


def test_the_plain_picture_stands_on_the_left(checkpoint: Path, recipe: Path, tmp_path: Path) -> None:
    slide = draw_squares(tmp_path / "s.png", (100, 40))

    explain(checkpoint, slide, "--recipe", recipe, "--out", tmp_path / "out")

    with Image.open(tmp_path / "out" / "0001_s.cam.png") as both, Image.open(slide) as given:
        left = np.asarray(both.crop((0, 0, 448, 448)).resize((224, 224), Image.Resampling.BOX), int)
        assert np.abs(left - np.asarray(given.convert("RGB"), int)).mean() < 2


def test_where_nothing_stands_out_the_picture_is_left_as_it_is() -> None:
    image = Image.effect_noise((64, 48), 40).convert("RGB")

    shown = overlay(image, np.zeros((32, 32), np.float32))

    assert shown.tobytes() == image.tobytes()


@pytest.mark.parametrize(("squares", "label"), [([], "square"), ([(50, 50)], "nothing")])
def test_a_map_of_nothing_says_so(
    squares: list[tuple[int, int]], label: str, checkpoint: Path, recipe: Path, tmp_path: Path
) -> None:
    slide = draw_squares(tmp_path / "s.png", *squares)

    result = explain(checkpoint, slide, "--recipe", recipe, "--class", label, "--out", tmp_path / "out")

    first = result.stdout.splitlines()[0]
    assert first == f"1 explained, in 1 of which nothing stands out, 0 unreadable -> {tmp_path / 'out'}"
    (row,) = table(tmp_path / "out")
    assert row["note"] == "nothing stands out"
    assert (row["label"], row["class_explained"]) == ("square" if squares else "nothing", label)
    assert heat_of(tmp_path / "out" / row["overlay"])[0].max() <= 2


def test_a_label_that_cannot_be_drawn_is_called_by_the_number_of_its_class(
    checkpoint: Path, recipe: Path, tmp_path: Path
) -> None:
    slide = draw_squares(tmp_path / "s.png", (100, 40))
    captions = {}
    for label in ("細胞", "class 1", "Лимфоцит"):
        out = tmp_path / label
        result = explain(checkpoint, slide, "--recipe", recipe, "--labels", f"{label},nothing", "--out", out)
        assert result.exit_code == 0, result.output
        with Image.open(out / "0001_s.cam.png") as both:
            captions[label] = both.crop((0, both.height - LINE, *both.size)).tobytes()
        (row,) = table(out)
        assert row["label"] == label

    assert captions["細胞"] == captions["class 1"]
    assert captions["Лимфоцит"] != captions["class 1"]
