"""Whatever follows an image in its file changes nothing, and is not read where it is large."""

import io
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from batchcls.images.decoders import open_decoder
from batchcls.images.decoders.base import DecoderOptions
from batchcls.images.formats import byte_extent
from batchcls.images.formats.byte_extent import LARGE_BYTES, image_end
from batchcls.images.formats.inspection import Header, decode, examine
from batchcls.images.formats.refusal import RefusedError
from batchcls.networks.preprocess import Preprocess
from batchcls.records import Failure, Slide
from benchmarks.workload import draw_field

PAGE = Image.effect_noise((300, 200), 90).convert("RGB")
WAYS: dict[str, dict[str, Any]] = {
    "jpg": {"format": "JPEG"},
    "progressive.jpg": {"format": "JPEG", "progressive": True, "comment": b"\xff\xd9 is no end"},
    "restarts.jpg": {"format": "JPEG", "restart_marker_rows": 1},
    "png": {"format": "PNG"},
    "bmp": {"format": "BMP"},
    "webp": {"format": "WEBP"},
    "ppm": {"format": "PPM"},
    "jp2": {"format": "JPEG2000"},
    "tif": {"format": "TIFF"},
    "lzw.tif": {"format": "TIFF", "compression": "tiff_lzw", "tiffinfo": {278: 8}},
    "big.tif": {"format": "TIFF", "compression": "jpeg", "big_tiff": True},
    "pages.tif": {"format": "TIFF", "compression": "tiff_lzw", "save_all": True, "append_images": [PAGE] * 3},
}


def saved(name: str, mode: str = "RGB") -> bytes:
    stream = io.BytesIO()
    draw_field(np.random.default_rng(3), 64, 48).convert(mode).save(stream, **WAYS[name])
    return stream.getvalue()


SOUND = {name: saved(name) for name in WAYS}
TAILS: dict[str, Callable[[int], bytes]] = {
    "zeros": bytes,
    "noise": lambda length: np.random.default_rng(length).bytes(length),
    "0xff": lambda length: b"\xff" * length,
    "another": lambda length: SOUND["jpg"] * (length // len(SOUND["jpg"]) + 1) + bytes(100),
}


def end_of(data: bytes) -> int:
    def pread(offset: int, length: int) -> bytes:
        return data[offset : offset + length]

    return image_end(len(data), pread)


def outcome(data: bytes) -> tuple[object, ...]:
    """What a run makes of these bytes: pixels, or why not."""
    try:
        header = examine("x", data, 10**7)
    except RefusedError as refusal:
        return refusal.details
    try:
        return header, decode(data, header).tobytes()
    except Exception as error:  # noqa: BLE001  # which becomes a row
        return header.suspect, type(error).__name__


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("name", WAYS)
def test_an_image_ends_where_its_format_says(name: str, tail: str) -> None:
    data = SOUND[name] + TAILS[tail](LARGE_BYTES + 100)
    end = end_of(data)
    assert name == "pages.tif" or len(SOUND[name]) <= end <= len(SOUND[name]) + 1
    assert outcome(data[:end]) == outcome(data)
    header, pixels = outcome(SOUND[name])
    assert isinstance(header, Header)
    assert outcome(data)[-1] == pixels


@given(
    name=st.sampled_from(sorted(WAYS)),
    tail=st.sampled_from(sorted(TAILS)),
    cut=st.integers(0, 4000) | st.none(),
    changes=st.lists(st.tuples(st.integers(2, 3000), st.integers(0, 255)), max_size=3),
)
def test_a_damaged_file_has_the_same_row_with_and_without_what_is_not_read(
    name: str, tail: str, cut: int | None, changes: list[tuple[int, int]]
) -> None:
    damaged = bytearray(SOUND[name][:cut])
    for position, value in changes:
        if position < len(damaged):
            damaged[position] = value
    data = bytes(damaged) + TAILS[tail](20_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(byte_extent, "LARGE_BYTES", 0)
        end = end_of(data)
    assert outcome(data[:end]) == outcome(data)


def test_further_pages_are_not_read() -> None:
    end = end_of(SOUND["pages.tif"] + bytes(LARGE_BYTES))
    assert len(SOUND["lzw.tif"]) - 2000 < end < len(SOUND["pages.tif"]) // 4


def test_a_tail_of_a_gigabyte_is_not_read(tmp_path: Path) -> None:
    for name in ("jpg", "png", "bmp"):
        path = tmp_path / f"a.{name}"
        path.write_bytes(SOUND[name])
        with path.open("r+b") as stream:
            stream.truncate(1 << 30)
    decoder = open_decoder(
        "turbo", Preprocess(), DecoderOptions(batch_size=8, threads=1, max_pixels=10**7, memory_bytes=200 << 20)
    )
    with closing(decoder):
        batches = list(decoder.decode([Slide(str(tmp_path), path.name) for path in tmp_path.iterdir()]))
    assert sum(len(batch.slides) for batch in batches) == 3
    failures: list[Failure] = [failure for batch in batches for failure in batch.failures]
    assert failures == []


def test_an_image_of_nothing_but_zeros_after_its_first_bytes_is_read_whole() -> None:
    for magic in (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"RIFF\0\0\0\0WEBP", b"P6", b"\0\0\0\x0cjP  "):
        data = magic + bytes(LARGE_BYTES + 1)
        assert 0 < end_of(data) <= len(data)


def test_a_gigabyte_of_empty_chunks_is_not_walked_through(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(SOUND["png"][:33])
    os.truncate(path, 1 << 30)
    with path.open("rb") as stream:
        end = image_end(1 << 30, lambda offset, length: os.pread(stream.fileno(), length, offset))
        data = stream.read(end)
    assert end < 13_000_000
    with pytest.raises(RefusedError, match="more than 1,000,000 chunks"):
        examine("a.png", data, 10**7)
