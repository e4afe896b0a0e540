"""JPEGs that are recognized by groups have the header that each has when it is examined alone."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from batchcls.images.formats import memory_costs
from batchcls.images.formats.inspection import examine
from batchcls.images.formats.usual_jpegs import UsualJpegs, usual_jpegs
from tests.image_variants import HEIGHT, WIDTH, picture, saved

RGB = Image.fromarray(picture())
USUAL = [
    *(
        saved(RGB, "JPEG", quality=quality, subsampling=name)
        for quality in (30, 95)
        for name in ("4:4:4", "4:2:2", "4:2:0")
    ),
    saved(RGB.convert("L"), "JPEG"),
    saved(RGB, "JPEG", optimize=True),
    saved(RGB, "JPEG", restart_marker_blocks=3),
    saved(RGB, "JPEG", comment=b"a comment"),
    saved(RGB, "JPEG") + b"bytes behind the image",
]
UNUSUAL = [
    saved(RGB, "JPEG", progressive=True),
    saved(RGB.convert("CMYK"), "JPEG"),
    saved(RGB, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"),
    saved(RGB, "JPEG", icc_profile=b"\0" * 200),
    saved(RGB, "JPEG")[:-2],
    saved(RGB, "JPEG")[:200],
    saved(RGB, "PNG"),
    b"\xff\xd8",
    b"\xff\xd8\xff\xd9",
    b"x",
    b"\xff" * 300,
]


def grouped(files: Sequence[bytes]) -> UsualJpegs:
    lengths = np.array([len(file) for file in files], np.int64)
    ends = np.cumsum(lengths)
    return usual_jpegs(np.frombuffer(b"".join(files) + b"\xff" * 32, np.uint8), ends - lengths, ends)


def check(files: Sequence[bytes]) -> UsualJpegs:
    found = grouped(files)
    for number in np.flatnonzero(found.usual).tolist():
        width, height, components = (int(values[number]) for values in (found.widths, found.heights, found.components))
        header = examine("a.jpg", files[number], width * height)
        assert (header.format, header.width, header.height) == ("JPEG", width, height)
        assert (header.suspect, header.plain_jpeg) == (False, True)
        assert header.decode_bytes == memory_costs.of_jpeg(width, height, components, 0.0)
    return found


def test_usual_jpegs_are_recognized_beside_others() -> None:
    files = [file for pair in zip(USUAL, UNUSUAL, strict=True) for file in pair]
    found = check(files)
    assert found.usual.tolist() == [True, False] * len(USUAL)
    assert set(zip(found.widths[found.usual], found.heights[found.usual], strict=True)) == {(WIDTH, HEIGHT)}


@pytest.mark.parametrize("alone", [*USUAL, *UNUSUAL])
def test_a_group_may_have_one_file(alone: bytes) -> None:
    assert check([alone]).usual.tolist() == [alone in USUAL]


_BYTES = st.sampled_from([0x00, 0xC0, 0xC1, 0xC2, 0xC4, 0xD0, 0xD8, 0xD9, 0xDA, 0xE0, 0xFE, 0xFF]) | st.integers(0, 255)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(USUAL + UNUSUAL)))
    for _ in range(draw(st.integers(0, 4))):
        near = st.integers(0, min(len(data), 640) - 1)
        data[draw(near | st.integers(0, len(data) - 1))] = draw(_BYTES)
    return bytes(data[: draw(st.integers(1, len(data)) | st.just(len(data)))])


@given(st.lists(damaged(), min_size=1, max_size=12))
def test_damage_never_makes_another_header(files: list[bytes]) -> None:
    check(files)
