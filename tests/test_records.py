import math
import os
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms import CenterCrop, Resize

from batchcls.errors import RecipeError
from batchcls.records import Preprocess, printable

NAMES = st.binary(min_size=1, max_size=12).filter(lambda name: not set(name) & {0, ord("/")})
SIDES = st.integers(1, 120)


def test_no_two_names_become_one() -> None:
    pieces = (b"\\", b"x", b"f", b"\xff", b"\xc3", b"\xa9")
    names = {b"".join(parts) for length in range(1, 7) for parts in product(pieces, repeat=length)}
    assert len({printable(os.fsdecode(name)) for name in names}) == len(names)


@given(st.lists(NAMES, unique=True))
def test_every_name_becomes_valid_unicode_of_its_own(names: list[bytes]) -> None:
    shown = [printable(os.fsdecode(name)).encode() for name in names]
    assert len(set(shown)) == len(names)


@pytest.mark.parametrize("name", ["a.jpg", "a\\b.jpg", "Zelle ü 細胞\n.png", "a\\x.jpg", "\\xZZ.jpg", " "])
def test_an_ordinary_name_stands_as_it_is(name: str) -> None:
    assert printable(name) == name


@pytest.mark.parametrize(
    "values",
    [
        {"size_px": (0, 224)},
        {"size_px": (224, 5000)},
        {"size_px": (224,)},
        {"resize": "crop"},
        {"resize": "shorter", "shorter_px": 223},
        {"resize": "shorter", "shorter_px": 10**6},
        {"interpolation": "nearest"},
        {"mean": (0.5, 0.5)},
        {"mean": (math.nan, 0.5, 0.5)},
        {"mean": (math.inf, 0.5, 0.5)},
        {"std": (0.5, 0.5, 0.0)},
        {"std": (0.5, 0.5, -1.0)},
        {"std": (math.nan, 0.5, 0.5)},
        {"std": (math.inf, 0.5, 0.5)},
    ],
)
def test_preprocessing_that_makes_no_sense_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=list(values)[-1]):
        Preprocess(**values)


@given(SIDES, SIDES, st.integers(1, 40), st.integers(1, 40), st.integers(0, 30))
def test_the_shorter_side_is_resized_and_cropped_where_torchvision_does(
    width: int, height: int, crop_height: int, crop_width: int, more: int
) -> None:
    shorter_px = max(crop_height, crop_width) + more
    resized = Resize(shorter_px)(torch.zeros(1, height, width))
    resized_height, resized_width = resized.shape[1:]
    rows, columns = torch.meshgrid(torch.arange(resized_height), torch.arange(resized_width), indexing="ij")
    crop = CenterCrop((crop_height, crop_width))(torch.stack([rows, columns]))
    (top, left), (bottom, right) = crop[:, 0, 0].tolist(), (crop[:, -1, -1] + 1).tolist()

    region = Preprocess((crop_height, crop_width), "shorter", shorter_px).region(width, height)

    across, down = resized_width / width, resized_height / height
    assert [region[0] * across, region[1] * down] == pytest.approx([left, top], abs=1e-6)
    assert [region[2] * across, region[3] * down] == pytest.approx([right, bottom], abs=1e-6)


@given(SIDES, SIDES)
def test_stretching_takes_the_whole_image(width: int, height: int) -> None:
    assert Preprocess(resize="stretch").region(width, height) == (0, 0, width, height)
