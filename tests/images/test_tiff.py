"""The directory of a TIFF and the boxes of a JPEG 2000, read without a decoder."""

import io

import numpy as np
import pytest
from PIL import Image

from batchcls.images.formats import tiff
from batchcls.images.formats.jpeg2000 import j2k_size, walk_boxes
from tests.images.test_decode_limits import tiff as drawn


def pread_of(data: bytes) -> tiff.Pread:
    return lambda offset, length: data[offset : offset + length]


@pytest.mark.parametrize("order", "<>")
def test_values_are_the_same_in_either_order_of_bytes(order: str) -> None:
    data = drawn(20, 4, [(50_000, 3, 1, 7)], order=order)
    directory = tiff.first_directory(pread_of(data))
    assert directory is not None
    assert directory.read(tiff.WIDTH, pread_of(data), 1).tolist() == [10]
    assert directory.read(tiff.COMPRESSION, pread_of(data), 1).tolist() == [tiff.UNCOMPRESSED]
    assert directory.read(tiff.STRIP_OFFSETS, pread_of(data), 4).tolist() == [8] * 4
    assert directory.read(tiff.STRIP_BYTES, pread_of(data), 4).tolist() == [10] * 4
    assert directory.short(50_000, default=0) == 7
    assert (directory.has(50_000), directory.has(50_001), directory.short(50_001, default=3)) == (True, False, 3)
    assert directory.read(50_001, pread_of(data), 1).tolist() == []


@pytest.mark.parametrize("order", "<>")
def test_values_beyond_the_end_are_none_and_too_many_are_refused(order: str) -> None:
    data = drawn(20, 4, [], order=order)[:-1]
    directory = tiff.first_directory(pread_of(data))
    assert directory is not None
    assert directory.read(tiff.STRIP_BYTES, pread_of(data), 4).tolist() == []
    with pytest.raises(ValueError, match="4 values"):
        directory.read(tiff.STRIP_OFFSETS, pread_of(data), 3)


@pytest.mark.parametrize("length", [0, 5, 8, 9])
def test_a_file_that_ends_before_its_directory_has_none(length: int) -> None:
    assert tiff.first_directory(pread_of(drawn(20, 1, [])[:length])) is None


@pytest.mark.parametrize("description", ["Aperio Image Library", "a microscope"])
def test_a_scanners_mark_is_seen(description: str) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "TIFF", description=description)
    directory = tiff.first_directory(pread_of(stream.getvalue()))
    assert directory is not None
    assert directory.is_whole_slide(pread_of(stream.getvalue())) == description.startswith("Aperio")


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("ending", ["JP2", "J2K"])
def test_a_jpeg_2000_says_its_size_in_boxes_and_without(mode: str, ending: str) -> None:
    stream = io.BytesIO()
    image = Image.fromarray(np.zeros((30, 40), np.uint8)).convert(mode)
    image.save(stream, "JPEG2000", no_jp2=ending == "J2K", tile_size=(16, 8))
    size = j2k_size(stream.getvalue())
    assert (size.tile_pixels, size.depths) == (128, (8,) * len(image.getbands()))
    kinds = [box.kind for box in walk_boxes(pread_of(stream.getvalue()), entered=b"jp2h")]
    assert ending == "J2K" or (kinds[0], kinds[-1], b"ihdr" in kinds) == (b"jP  ", b"jp2c", True)
