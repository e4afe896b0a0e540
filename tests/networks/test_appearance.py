"""The appearance numbers: their order, their reference values, and what changes them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from batchcls.networks.appearance import APPEARANCE_NAMES, FILTERS, OPTICAL_DENSITY_STRIDE, appearance
from batchcls.records import Pixels


def stained(height: int, width: int, seed: int = 0) -> Pixels:
    """One (height, width, 3) drawing of cells on a light ground, with a little noise."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    cells = np.zeros((height, width))
    for _ in range(5):
        row, column = generator.uniform(0, height), generator.uniform(0, width)
        cells += np.exp(-((((rows - row) ** 2 + (columns - column) ** 2) / (height * width / 90)) ** 4))
    density = 0.1 + cells[..., None] * np.array([0.7, 1.2, 0.4])
    return np.clip(255 * np.exp(-density) + generator.normal(0, 3, (height, width, 3)), 0, 255).astype(np.uint8)


def numbers(pixels: Pixels) -> dict[str, float]:
    return dict(zip(APPEARANCE_NAMES, appearance(pixels[None])[0].tolist(), strict=True))


@given(height=st.integers(10, 70), width=st.integers(10, 70), seed=st.integers(0, 99))
def test_the_numbers_are_what_a_convolution_library_makes_of_the_constants(height: int, width: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    planes = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
    density = -torch.log((planes[:, :, ::OPTICAL_DENSITY_STRIDE, ::OPTICAL_DENSITY_STRIDE] + 1) / 256)
    means = density.mean((2, 3), keepdim=True)
    above = (density[:, 1:2] - means[:, 1:2]).clamp(min=0)
    expected = [means[:, :, 0, 0], (density - means).abs().mean((2, 3)), (density * above).mean((2, 3))]
    expected += [
        torch.nn.functional.conv2d(planes, torch.from_numpy(each.weights), stride=each.strides, dilation=each.dilation)
        .abs()
        .mean((2, 3))
        for each in FILTERS
    ]
    np.testing.assert_allclose(appearance(pixels), torch.cat(expected, 1), rtol=1e-4, atol=1e-5)


def test_an_even_image_has_its_optical_density_and_nothing_else() -> None:
    even = numbers(np.full((32, 40, 3), (127, 63, 255), np.uint8))
    assert [even[f"mean_{color}"] for color in ("red", "green", "blue")] == pytest.approx(np.log([2, 4, 1]), abs=1e-6)
    assert all(value == pytest.approx(0, abs=1e-6) for name, value in even.items() if not name.startswith("mean"))


def test_no_images_have_no_numbers() -> None:
    assert appearance(np.zeros((0, 32, 32, 3), np.uint8)).shape == (0, len(APPEARANCE_NAMES))


def test_filter_weights_and_pixels_are_exact_in_bfloat16() -> None:
    for each in FILTERS:
        assert torch.equal(torch.from_numpy(each.weights).bfloat16().float(), torch.from_numpy(each.weights))
        assert not each.weights.sum(axis=(1, 2, 3)).any()  # an even image answers zero


def test_blur_takes_fine_detail_and_leaves_coarse_detail() -> None:
    pixels = stained(96, 128)
    blurred = numbers(np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(1.5))))
    assert blurred["fine"] / blurred["coarse"] < 0.5 * numbers(pixels)["fine"] / numbers(pixels)["coarse"]


def test_steps_between_blocks_of_eight_stand_out_only_where_the_steps_are_there() -> None:
    steps = np.repeat(np.arange(12, dtype=np.uint8) % 2 * 40, 8)
    pixels = np.broadcast_to(steps[None, :, None], (96, 96, 3)).copy()
    stepped, turned = numbers(pixels), numbers(pixels.transpose(1, 0, 2))
    assert (stepped["grid_x"], stepped["inner_x"], stepped["grid_y"]) == (40 * 4 * 2, 0, 0)
    assert (turned["grid_y"], turned["inner_y"], turned["grid_x"]) == (40 * 4 * 2, 0, 0)
