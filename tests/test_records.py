import math
import os
import weakref
from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms import CenterCrop, Resize

from batchcls.engine.base import EngineInfo
from batchcls.errors import EngineError, RecipeError
from batchcls.networks.preprocess import Preprocess
from batchcls.records import DevicePixels, Pixels
from batchcls.storage.file_names import printable

NAMES = st.binary(min_size=1, max_size=12).filter(lambda name: not set(name) & {0, ord("/")})
SIDES = st.integers(1, 120)
ROWS = 7
PLACES = st.none() | st.integers(-ROWS - 3, ROWS + 3)


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
        {"interpolation": "area"},
        {"channels": "GBR"},
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


def pixels_like(host: Pixels) -> DevicePixels:
    """Pixels that lie where ``host`` lies: to tell of memory, no GPU is needed."""
    return DevicePixels(host.shape, host.ctypes.data, host)


def at(pixels: DevicePixels) -> Pixels:
    """What lies there. NumPy's array interface says it in the same words as CUDA's."""
    return np.asarray(SimpleNamespace(__array_interface__=pixels.__cuda_array_interface__))


@given(PLACES, PLACES)
def test_some_rows_of_a_gpus_pixels_are_those_of_an_array(start: int | None, stop: int | None) -> None:
    host = np.random.default_rng(0).integers(0, 256, (ROWS, 5, 4, 3), np.uint8)
    some = pixels_like(host)[start:stop]
    wanted = host[start:stop]

    assert (some.shape, some.dtype, len(some), some.nbytes) == (wanted.shape, wanted.dtype, len(wanted), wanted.nbytes)
    assert host.ctypes.data <= some.address <= host.ctypes.data + host.nbytes
    assert not some.nbytes or some.address == wanted.ctypes.data
    np.testing.assert_array_equal(at(some), wanted)


@given(PLACES, PLACES, PLACES, PLACES)
def test_some_of_some_rows_of_a_gpus_pixels_are_those_of_an_array(
    start: int | None, stop: int | None, then_start: int | None, then_stop: int | None
) -> None:
    host = np.random.default_rng(0).integers(0, 256, (ROWS, 2, 3, 3), np.uint8)
    np.testing.assert_array_equal(
        at(pixels_like(host)[start:stop][then_start:then_stop]), host[start:stop][then_start:then_stop]
    )


@pytest.mark.parametrize("rows", [slice(None, None, 2), slice(None, None, -1), slice(5, 0, -2)])
def test_rows_of_a_gpu_that_do_not_follow_one_another_are_refused(rows: slice) -> None:
    with pytest.raises(IndexError, match="not consecutive"):
        pixels_like(np.zeros((ROWS, 5, 4, 3), np.uint8))[rows]


def test_pixels_say_of_themselves_what_cuda_libraries_read() -> None:
    pixels = DevicePixels((2, 4, 5, 3), 0x7F00_0000_0000, None)

    assert pixels[1:].__cuda_array_interface__ == {
        "shape": (1, 4, 5, 3),
        "typestr": "|u1",
        "data": (0x7F00_0000_0000 + 4 * 5 * 3, False),
        "strides": None,
        "version": 3,
    }


def test_a_gpus_memory_is_held_until_its_last_row_goes() -> None:
    class Memory:
        """Whatever gives memory back when it goes."""

    owner = Memory()
    given_back = weakref.ref(owner)
    pixels = DevicePixels((ROWS, 5, 4, 3), 0x7F00_0000_0000, owner)
    last = pixels[-1:]
    del owner, pixels
    assert given_back() is not None
    del last
    assert given_back() is None


INFO = EngineInfo("blood", ("a", "b"), Preprocess((4, 5)), "0" * 64, "1" * 64, "openvino", "cpu", "f32")


def test_an_engine_on_the_cpu_takes_pixels_of_the_host_as_they_are() -> None:
    host = np.zeros((ROWS, 4, 5, 3), np.uint8)
    assert INFO.host_pixels(host) is host


def test_an_engine_on_the_cpu_refuses_pixels_of_a_gpu() -> None:
    with pytest.raises(EngineError, match=r"'openvino' takes pixels on the host, these are on a GPU"):
        INFO.host_pixels(DevicePixels((ROWS, 4, 5, 3), 0x7F00_0000_0000, None))


@pytest.mark.parametrize("shape", [(ROWS, 5, 4, 3), (4, 5, 3), (0, 4, 5), (ROWS, 3, 4, 5)])
def test_pixels_of_another_shape_are_refused_wherever_they_are(shape: tuple[int, ...]) -> None:
    for pixels in (np.zeros(shape, np.uint8), DevicePixels(shape, 0x7F00_0000_0000, None)):
        with pytest.raises(EngineError, match=r"'blood' takes \('N', 4, 5, 3\) uint8, this batch is \("):
            INFO.host_pixels(pixels)
