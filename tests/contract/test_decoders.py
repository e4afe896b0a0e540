"""Every decoder gives the pixels of training, and no file costs another its place."""

import os
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision import transforms

from batchcls.contracts import Decoder
from batchcls.decoders import DecoderName, open_decoder
from batchcls.records import Batch, Failure, Pixels, Preprocess, Slide
from tests.conftest import draw

SMALL = Preprocess(size_px=(32, 40))
GEOMETRIES = [
    SMALL,
    Preprocess(),
    Preprocess(resize="shorter"),
    Preprocess((64, 40), "shorter", 75),
    Preprocess((48, 48), "shorter", 60, "bicubic"),
    Preprocess((48, 48), interpolation="lanczos"),
    Preprocess((97, 151)),
]
FILTERS = {name: transforms.InterpolationMode(name) for name in ("bilinear", "bicubic", "lanczos")}
FORMATS = {
    "444.jpg": {"subsampling": "4:4:4"},
    "420.jpg": {"subsampling": "4:2:0"},
    "progressive.jpg": {"progressive": True},
    "grey.jpg": {"mode": "L"},
    "cmyk.jpg": {"mode": "CMYK"},
    "turned.jpg": {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"},
    "rgb.png": {},
    "rgba.png": {"mode": "RGBA"},
    "palette.png": {"mode": "P"},
    "grey.png": {"mode": "L"},
    "plain.bmp": {},
    "plain.tif": {},
    "lzw.tiff": {"compression": "tiff_lzw"},
    "plain.webp": {"lossless": True},
    "lossy.webp": {},
    "plain.jp2": {},
    "codestream.j2k": {},
}
ODD_SIZES = [(1, 1), (3, 2), (300, 20), (20, 300), (1024, 768)]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One image of each format, none a square; and some of odd sizes."""
    folder = tmp_path_factory.mktemp("images")
    for seed, (name, options) in enumerate(FORMATS.items()):
        draw(folder / name, seed, (151, 97), **options)
    for seed, size in enumerate(ODD_SIZES):
        draw(folder / f"size{seed}.png", seed, size)
    return folder


@pytest.fixture(scope="module")
def fields(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nineteen sound images of different sizes."""
    folder = tmp_path_factory.mktemp("fields")
    for seed in range(19):
        draw(folder / f"{seed:02}.jpg", seed, (60 + seed, 40 + seed))
    return folder


Open = Callable[[Preprocess], Decoder]


@pytest.fixture(params=["turbo", "dali", "pillow"])
def opened(request: pytest.FixtureRequest) -> Iterator[Open]:
    """Opens the decoder under test."""
    decoders: list[Decoder] = []

    def open_it(preprocess: Preprocess = SMALL) -> Decoder:
        decoders.append(open_decoder(request.param, preprocess, batch_size=8, threads=2, max_pixels=10**7))
        return decoders[-1]

    yield open_it
    for decoder in decoders:
        decoder.close()


def slides(folder: Path) -> list[Slide]:
    return [Slide(str(folder), name) for name in sorted(os.listdir(folder))]


def rows(batches: list[Batch]) -> dict[str, Pixels | Failure]:
    """What became of each file, once."""
    found = [(slide.path, row) for batch in batches for slide, row in zip(batch.slides, batch.pixels, strict=True)]
    found += [(failure.slide.path, failure) for batch in batches for failure in batch.failures]
    assert len(dict(found)) == len(found)
    return dict(found)


def in_training(path: Path, preprocess: Preprocess) -> Pixels:
    """What torchvision hands to ToTensor."""
    filter_ = FILTERS[preprocess.interpolation]
    steps: list[Callable[[Image.Image], Image.Image]] = (
        [transforms.Resize(preprocess.size_px, filter_)]
        if preprocess.resize == "stretch"
        else [transforms.Resize(preprocess.shorter_px, filter_), transforms.CenterCrop(preprocess.size_px)]
    )
    with Image.open(path) as image:
        return np.asarray(transforms.Compose(steps)(image.convert("RGB")))


def threads_beyond(before: set[threading.Thread]) -> list[str]:
    """Names of threads that are there five seconds later still."""
    end = time.monotonic() + 5
    while (more := set(threading.enumerate()) - before) and time.monotonic() < end:
        time.sleep(0.01)
    return [thread.name for thread in more]


@pytest.mark.parametrize("preprocess", GEOMETRIES, ids=lambda p: f"{p.resize}-{p.size_px}-{p.interpolation}")
def test_pixels_are_those_of_training_in_every_format(
    opened: Open, images: Path, preprocess: Preprocess, request: pytest.FixtureRequest
) -> None:
    reduces = request.node.callspec.params["opened"] == "turbo"
    found = rows(list(opened(preprocess).decode(slides(images))))
    assert sorted(found) == sorted(os.listdir(images))
    assert [str(row) for row in found.values() if isinstance(row, Failure)] == []
    off = {name: np.ptp([row, in_training(images / name, preprocess)], axis=0) for name, row in found.items()}
    exact = {name: by for name, by in off.items() if not (reduces and name.endswith(".jpg"))}
    allowed = 0 if preprocess.resize == "stretch" else 2  # a crop is not rounded in between
    assert {name: by.max() for name, by in exact.items() if by.max() > allowed} == {}
    assert {name: by.mean() for name, by in off.items() if by.mean() > (4 if reduces else 0.5)} == {}


def test_sizes_are_those_stored_whatever_exif_says(opened: Open, images: Path) -> None:
    batches = list(opened().decode(slides(images)))
    sizes = {slide.path: size for batch in batches for slide, size in zip(batch.slides, batch.sizes, strict=True)}
    assert {sizes.pop(name) for name in FORMATS} == {(151, 97)}
    assert sorted(sizes.values()) == sorted(ODD_SIZES)


def test_more_files_than_a_batch_come_in_batches_that_stay_as_they_were(opened: Open, fields: Path) -> None:
    then: list[Pixels] = []
    batches: list[Batch] = []
    for batch in opened().decode(slides(fields)):
        then.append(batch.pixels.copy())
        batches.append(batch)
    assert len(rows(batches)) == 19
    assert max(batch.files for batch in batches) == 8
    for batch, pixels in zip(batches, then, strict=True):
        np.testing.assert_array_equal(batch.pixels, pixels)


def test_a_bad_file_costs_only_its_own_row(opened: Open, fields: Path, tmp_path: Path) -> None:
    whole = rows(list(opened().decode(slides(fields))))
    (tmp_path / "bad.bmp").write_bytes(draw(tmp_path / "x.bmp").read_bytes()[:-900])
    mixed = slides(fields)
    for place in (0, 9, 20):
        mixed.insert(place, Slide(str(tmp_path), "bad.bmp"))

    batches = list(opened().decode(mixed))

    assert [failure.kind for batch in batches for failure in batch.failures] == ["corrupt"] * 3
    sound = [(slide.path, row) for batch in batches for slide, row in zip(batch.slides, batch.pixels, strict=True)]
    assert sorted(path for path, _ in sound) == sorted(whole)
    for path, row in sound:
        np.testing.assert_array_equal(row, whole[path])


def png(width: int, height: int, depth: int = 8) -> bytes:
    """A PNG whose header says so, and whose body is tiny."""
    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 99)), (b"IEND", b"")
    chunks = [struct.pack(">I", len(x)) + kind + x + struct.pack(">I", zlib.crc32(kind + x)) for kind, x in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def break_files(folder: Path) -> dict[str, str]:
    """Fill ``folder`` with files that cannot be decoded, each with the kind of its failure."""

    def half_of(ending: str) -> bytes:
        whole = draw(folder / f"half.{ending}").read_bytes()
        return whole[: len(whole) // 2]

    content = {
        "empty.jpg": ("empty", b""),
        "half.jpg": ("corrupt", half_of("jpg")),
        "half.png": ("corrupt", half_of("png")),
        "half.bmp": ("corrupt", half_of("bmp")),
        "half.tif": ("corrupt", half_of("tif")),
        "half.webp": ("corrupt", half_of("webp")),
        "half.jp2": ("corrupt", half_of("jp2")),
        "start.jpg": ("corrupt", b"\xff\xd8\xff"),
        "text.jpg": ("not an image", b"once upon a time"),
        "zeros.png": ("not an image", bytes(5000)),
        "film.gif": ("unsupported", draw(folder / "film.gif").read_bytes()),
        "named.png": ("unsupported", draw(folder / "named.png", format="GIF").read_bytes()),
        "deep.png": ("unsupported", png(8, 8, depth=16)),
        "bomb.png": ("too large", png(60_000, 60_000)),
        "just.png": ("too large", png(10_000, 1_001)),
        "nothing.png": ("corrupt", png(0, 5)),
    }
    for name, (_, data) in content.items():
        (folder / name).write_bytes(data)
    os.mkfifo(folder / "pipe.png")
    (folder / "link.jpg").symlink_to("nowhere")
    (folder / "folder.jpg").mkdir()
    others = {"pipe.png": "not an image", "link.jpg": "missing", "folder.jpg": "unreadable"}
    return others | {name: kind for name, (kind, _) in content.items()}


def test_each_way_to_be_broken_is_told_apart_and_gives_no_pixels(opened: Open, tmp_path: Path) -> None:
    kinds = break_files(tmp_path)
    batches = list(opened().decode([*slides(tmp_path), Slide(str(tmp_path), "gone.jpg")]))
    failures = {failure.slide.path: failure for batch in batches for failure in batch.failures}
    assert {name: failure.kind for name, failure in failures.items()} == kinds | {"gone.jpg": "missing"}
    assert (failures["bomb.png"].width, failures["bomb.png"].height) == (60_000, 60_000)
    assert all(batch.pixels.shape == (0, 32, 40, 3) and not batch.slides for batch in batches)


def test_a_file_without_permission_keeps_its_row(tmp_path: Path) -> None:
    script = """if True:
        import os, sys
        from batchcls.decoders import open_decoder, dali, pillow, turbo
        from batchcls.records import Preprocess, Slide
        if os.geteuid() == 0:
            os.setuid(65534)
        for name in ("turbo", "dali", "pillow"):
            decoder = open_decoder(name, Preprocess(), batch_size=8, threads=1, max_pixels=10**7)
            for batch in decoder.decode([Slide(sys.argv[1], "closed.jpg")]):
                print([failure.text for failure in batch.failures])
    """
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        draw(Path(folder) / "closed.jpg").chmod(0)
        done = subprocess.run([sys.executable, "-c", script, folder], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["['unreadable: Permission denied']"] * 3


def test_nothing_to_decode_gives_no_batch(opened: Open) -> None:
    assert list(opened().decode([])) == []


def test_closing_early_returns_soon_and_stops_the_reading(opened: Open, fields: Path) -> None:
    decoder = opened()
    list(decoder.decode(slides(fields)))
    before = set(threading.enumerate())
    endless = (slides(fields)[number % 19] for number in count())

    batches = decoder.decode(endless)
    next(batches)
    since = time.monotonic()
    batches.close()

    assert time.monotonic() - since < 2
    assert threads_beyond(before) == []


def test_closing_does_not_wait_for_slides_that_do_not_come(opened: Open, fields: Path) -> None:
    decoder = opened()
    list(decoder.decode(slides(fields)))  # its own threads are there
    before = set(threading.enumerate())
    disk_answers = threading.Event()

    def hanging() -> Iterator[Slide]:
        yield from slides(fields)
        disk_answers.wait(20)

    batches = decoder.decode(hanging())
    assert next(batches).files + next(batches).files == 16
    time.sleep(0.2)  # the third waits for more by now
    since = time.monotonic()
    batches.close()
    elapsed_s = time.monotonic() - since
    disk_answers.set()

    assert elapsed_s < 2
    assert threads_beyond(before) == []


def test_closing_a_decoder_ends_its_threads(opened: Open, fields: Path) -> None:
    before = set(threading.enumerate())
    decoder = opened()
    list(decoder.decode(slides(fields)))
    decoder.close()
    decoder.close()
    assert threads_beyond(before) == []


def test_what_goes_wrong_in_finding_slides_comes_through(opened: Open, fields: Path) -> None:
    def failing() -> Iterator[Slide]:
        yield from slides(fields)
        raise LookupError("the disk is gone")

    with pytest.raises(LookupError, match="the disk is gone"):
        list(opened().decode(failing()))


@pytest.mark.parametrize("name", ["turbo", "dali", "pillow"])
def test_a_jpeg_of_thousands_of_scans_is_refused(tmp_path: Path, name: DecoderName) -> None:
    content = draw(tmp_path / "few.jpg", size=(640, 480), progressive=True).read_bytes()
    last = content.rindex(b"\xff\xda")
    (tmp_path / "many.jpg").write_bytes(content[:last] + content[last:-2] * 3000 + content[-2:])
    with closing(open_decoder(name, Preprocess(), batch_size=8, threads=1, max_pixels=10**7)) as decoder:
        found = rows(list(decoder.decode(slides(tmp_path))))
    assert isinstance(found["few.jpg"], np.ndarray)
    assert isinstance(found["many.jpg"], Failure)
