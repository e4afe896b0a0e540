"""Files that would be decoded for minutes or hours are refused by a count: they have the same row everywhere."""

import io
import struct
import time
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from batchcls.images.formats.inspection import decode, examine
from batchcls.images.formats.refusal import RefusedError

PATIENCE_S = 60.0
SIDE = 14_000


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def progressive(scans: int, side: int = SIDE) -> bytes:
    """A JPEG that begins well, and has so many scans."""
    frame = struct.pack(">BHHB", 8, side, side, 1) + bytes([1, 0x11, 0])
    table = segment(0xC4, bytes([0, 1, *[0] * 15, 0])) + segment(0xC4, bytes([0x10, 1, *[0] * 15, 0]))
    scan = segment(0xDA, bytes([1, 1, 0, 0, 0, 0])) + bytes(8)
    tables = segment(0xDB, b"\0" + b"\1" * 64)
    return b"\xff\xd8" + tables + segment(0xC2, frame) + table + scan * scans + b"\xff\xd9"


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(between: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 10, 10, 8, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(110)))
    return b"\x89PNG\r\n\x1a\n" + header + between + pixels + chunk(b"IEND", b"")


def jpeg(between: bytes) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (10, 10)).save(stream, "JPEG")
    return b"\xff\xd8" + between + stream.getvalue()[2:]


def jpeg2000(before: bytes = b"", within: bytes = b"") -> bytes:
    """One with more boxes than usual, before the box of the header and within it."""
    stream = io.BytesIO()
    Image.new("RGB", (10, 10)).save(stream, "JPEG2000")
    start, rest, image = (
        stream.getvalue().partition(b"jp2h")[0],
        *stream.getvalue().partition(b"jp2h")[2].split(b"jp2c", 1),
    )
    header = struct.pack(">I", 8 + len(within) + len(rest) - 4) + b"jp2h" + within + rest[:-4]
    return start[:-4] + before + header + rest[-4:] + b"jp2c" + image


def webp(between: bytes) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (10, 10)).save(stream, "WEBP")
    extended = b"VP8X" + struct.pack("<II", 10, 0) + b"\x09\0\0" * 2
    body = b"WEBP" + extended + between + stream.getvalue()[12:]
    return b"RIFF" + struct.pack("<I", len(body)) + body


def tiff(
    height: int, pieces: int, extra: list[tuple[int, int, int, int]], tail: bytes = b"", order: str = "<"
) -> bytes:
    """An uncompressed one of ``pieces`` strips, all of the same bytes; ``order`` of bytes as `struct` has it."""
    entries = [(256, 4, 1, 10), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    start = 8 + 2 + 12 * (9 + len(extra)) + 4
    many = pieces > 1
    entries += [(273, 4, pieces, start if many else 8), (277, 3, 1, 1), (278, 4, 1, height // pieces)]
    entries += [(279, 4, pieces, start + 4 * pieces if many else 10 * height), *extra]
    forms = {3: "HHIHxx", 4: "HHII", 1: "HHII"}
    directory = b"".join(struct.pack(order + forms[entry[1]], *entry) for entry in entries)
    offsets = struct.pack(order + "I", 8) * pieces + struct.pack(order + "I", 10) * pieces if many else b""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(entries))
    return head + directory + bytes(4) + offsets + tail


def bmp_of_runs(side: int) -> bytes:
    palette, body = bytes(1024), b"\1\5" * (side * side)
    sizes = struct.pack("<IHHI", 54 + len(palette) + len(body), 0, 0, 54 + len(palette))
    return (
        b"BM" + sizes + struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(body), 0, 0, 256, 0) + palette + body
    )


ENDLESS: dict[str, tuple[Callable[[], bytes], str]] = {
    "scans": (lambda: progressive(31), "corrupt: its 31 scans of 14000x14000 pixels"),
    "segments": (lambda: jpeg(b"\xff\xfe\0\2" * 200_000), "corrupt: it has more than 100,000 segments"),
    "fill": (lambda: jpeg(b"\xff" * 2_000_000), "corrupt: it has more than 1,000,000 bytes that say nothing"),
    "chunks": (lambda: png(chunk(b"prVt", b"") * 1_000_001), "corrupt: it has more than 1,000,000 chunks"),
    "chunks of WebP": (lambda: webp(b"ABCD\0\0\0\0" * 1_000_001), "corrupt: it has more than 1,000,000 chunks"),
    "boxes": (lambda: jpeg2000(before=b"\0\0\0\x08free" * 1_000_001), "corrupt: it has more than 1,000,000 boxes"),
    "boxes within": (
        lambda: jpeg2000(within=b"\0\0\0\x08free" * 1_000_001),
        "corrupt: it has more than 1,000,000 boxes",
    ),
    "plain": (lambda: b"P3\n4000 4000\n255\n" + b"1 " * 1000, "unsupported: it is a PNM of text with 48,000,000"),
    "range": (lambda: b"P5\n5000 5000\n100\n" + bytes(1000), "unsupported: it is a PNM of other ranges"),
    "comments": (
        lambda: b"P2\n9 9\n255\n" + b"#a\n" * 200_000,
        "unsupported: it is a PNM of text with 200,000 comments",
    ),
    "header": (lambda: b"P5\n#" + b"x" * 10_000_000 + b"\n9 9\n255\n" + bytes(81), "corrupt: it begins as PPM"),
    "runs": (lambda: bmp_of_runs(6000), "unsupported: it is a BMP in runs"),
    "strips": (lambda: tiff(1_000_001, 1_000_001, []), "corrupt: its pixels are stored in 1,000,001 pieces"),
    "strips of big-endian": (
        lambda: tiff(1_000_001, 1_000_001, [], order=">"),
        "corrupt: its pixels are stored in 1,000,001 pieces",
    ),
    "tags": (
        lambda: tiff(10, 1, [(40_000 + number, 1, 10 << 20, 8) for number in range(100)], bytes(10 << 20)),
        "corrupt: its tags take 1,048,576,",
    ),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_a_file_that_would_be_decoded_for_minutes_is_refused_at_once(name: str) -> None:
    make, told = ENDLESS[name]
    data = make()
    since = time.monotonic()
    with pytest.raises(RefusedError) as refused:
        examine("x", data, 10**9)
    assert time.monotonic() - since < PATIENCE_S
    assert str(refused.value).startswith(told)


@pytest.mark.parametrize("save", [{"progressive": True}, {"restart_marker_rows": 1}, {"comment": b"c" * 60_000}])
def test_sound_jpegs_of_any_kind_are_decoded(save: dict[str, Any]) -> None:
    stream = io.BytesIO()
    noise = np.random.default_rng(1).integers(0, 256, (300, 400, 3), np.uint8)
    Image.fromarray(noise).save(stream, "JPEG", icc_profile=bytes(3_000_000), **save)
    header = examine("x", stream.getvalue(), 10**9)
    assert decode(stream.getvalue(), header).shape == (300, 400, 3)


def test_a_few_more_scans_than_usual_of_a_small_image_are_no_work() -> None:
    header = examine("x", progressive(200, side=64), 10**9)
    assert (header.width, header.height) == (64, 64)


@pytest.mark.parametrize("make", [jpeg2000, webp])
def test_some_chunks_or_boxes_more_are_no_work(make: Callable[[bytes], bytes]) -> None:
    between = b"free\0\0\0\0" if make is webp else b"\0\0\0\x08free"
    data = make(between * 1000)
    assert decode(data, examine("x", data, 10**9)).shape == (10, 10, 3)


@pytest.mark.parametrize(
    ("scan", "sound"),
    [
        ((0, 0, 0, 0), True),
        ((0, 0, 0, 13), True),
        ((0, 0, 1, 0), True),
        ((1, 63, 2, 1), True),
        ((0, 5, 0, 0), False),  # the mean and details in one scan
        ((6, 5, 0, 0), False),
        ((1, 64, 0, 0), False),
        ((1, 63, 0, 14), False),
        ((1, 63, 1, 1), False),  # bits that are refined before they are there
        ((1, 63, 1, 14), False),
    ],
)
def test_a_progression_that_libjpeg_refuses_is_no_plain_jpeg(scan: tuple[int, int, int, int], sound: bool) -> None:
    first, last, before, now = scan
    usual = progressive(1, side=8)
    place = usual.index(b"\xff\xda")
    header = segment(0xDA, bytes([1, 1, 0, first, last, before << 4 | now]))
    data = usual[:-2] + header + usual[place + len(header) :]
    header_of_image = examine("image.jpg", data, 10**6)
    try:
        decode(data, header_of_image)
    except OSError:
        refused = True
    else:
        refused = False
    assert refused is not sound
    assert header_of_image.plain_jpeg is sound
