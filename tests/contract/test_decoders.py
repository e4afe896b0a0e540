"""Every decoder gives the pixels of training, and no file costs another its place."""

import os
import re
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from batchcls import machine
from batchcls.errors import DeviceMemoryError
from batchcls.images.decoders import open_decoder
from batchcls.images.decoders.base import Decoder, DecoderOptions
from batchcls.images.decoders.read_ahead import Encoded
from batchcls.images.formats.inspection import examine
from batchcls.networks.preprocess import Preprocess
from batchcls.records import Batch, DevicePixels, Failure, Pixels, Slide
from batchcls.storage.memory import MemoryPool
from benchmarks.workload import draw_field
from tests.commandline import PATIENCE_S
from tests.conftest import DATA, ROOT, draw

pytest.importorskip("nvidia.dali", reason="DALI is not installed")
pytest.importorskip("cykooz_resizer", reason="cykooz.resizer is not installed")

HOSTILE = DATA / "hostile"
REAL = ("bccd", "pbc8", "all4")
TURBO = pytest.param("turbo", marks=pytest.mark.skipif(not find_spec("simplejpeg"), reason="simplejpeg is missing"))
ON_CPU = [TURBO, "dali", "pillow", "graph"]
DECODERS = [*ON_CPU, pytest.param("gpu", marks=pytest.mark.gpu)]
"""What `open_decoder` opens; and the graph that GPUs use, on the CPU and on a GPU."""

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


Open = Callable[..., Decoder]


def open_named(name: Any, preprocess: Preprocess = SMALL, max_pixels: int = 10**7) -> Decoder:
    """One of `DECODERS`."""
    if name == "gpu":
        if not machine.has_nvjpeg():
            pytest.skip("nvJPEG is not installed")
        return open_decoder(
            "dali", preprocess, DecoderOptions(batch_size=8, threads=2, max_pixels=max_pixels, device="cuda:0")
        )
    if name != "graph":
        return open_decoder(name, preprocess, DecoderOptions(batch_size=8, threads=2, max_pixels=max_pixels))
    from batchcls.images.decoders.batching import BatchingDecoder
    from batchcls.images.decoders.dali import GraphGroup

    group = GraphGroup(preprocess, batch_size=8, threads=2, device="cpu")
    return BatchingDecoder(group, preprocess.size_px, DecoderOptions(8, 2, max_pixels, 1 << 30))


@pytest.fixture(params=DECODERS)
def opened(request: pytest.FixtureRequest) -> Iterator[Open]:
    """Opens the decoder under test."""
    decoders: list[Decoder] = []

    def open_it(*options: Any) -> Decoder:
        decoders.append(open_named(request.param, *options))
        return decoders[-1]

    yield open_it
    for decoder in decoders:
        decoder.close()


@pytest.fixture
def name(request: pytest.FixtureRequest, opened: Open) -> str:
    """Of the decoder under test."""
    return str(request.node.callspec.params["opened"])


def on_host(pixels: Pixels | DevicePixels) -> Pixels:
    """Pixels that can be looked at."""
    if isinstance(pixels, np.ndarray):
        return pixels
    import torch

    return np.asarray(torch.as_tensor(pixels, device="cuda").cpu().numpy())


def slides(folder: Path) -> list[Slide]:
    return [Slide(str(folder), name) for name in sorted(os.listdir(folder))]


def rows(batches: list[Batch]) -> dict[str, Pixels | Failure]:
    """What became of each file, once."""
    found = [
        (slide.path, row) for batch in batches for slide, row in zip(batch.slides, on_host(batch.pixels), strict=True)
    ]
    found += [(failure.slide.path, failure) for batch in batches for failure in batch.failures]
    assert len(dict(found)) == len(found)
    return dict(found)


def in_training(path: Path, preprocess: Preprocess) -> Pixels:
    """What torchvision hands to ToTensor."""
    transforms = pytest.importorskip("torchvision.transforms", reason="torchvision is not installed")
    filter_ = transforms.InterpolationMode(preprocess.interpolation)
    steps: list[Callable[[Image.Image], Image.Image]] = (
        [transforms.Resize(preprocess.size_px, filter_)]
        if preprocess.resize == "stretch"
        else [transforms.Resize(preprocess.shorter_px, filter_), transforms.CenterCrop(preprocess.size_px)]
    )
    with Image.open(path) as image:
        return np.asarray(transforms.Compose(steps)(image.convert("RGB")))


def threads_beyond(before: set[threading.Thread]) -> list[str]:
    """Names of threads that do not end."""
    end = time.monotonic() + PATIENCE_S / 10
    while (more := set(threading.enumerate()) - before) and time.monotonic() < end:
        time.sleep(0.01)
    return [thread.name for thread in more]


def off(found: Pixels, path: Path, preprocess: Preprocess) -> npt.NDArray[np.uint8]:
    """By how much pixels differ from those of training."""
    return np.ptp([found, in_training(path, preprocess)], axis=0)


GEOMETRY = pytest.mark.parametrize("preprocess", GEOMETRIES, ids=lambda p: f"{p.resize}-{p.size_px}-{p.interpolation}")


@GEOMETRY
def test_pixels_are_those_of_training_in_every_format(
    opened: Open, name: str, images: Path, preprocess: Preprocess
) -> None:
    found = rows(list(opened(preprocess).decode(slides(images))))
    assert sorted(found) == sorted(os.listdir(images))
    assert [str(row) for row in found.values() if isinstance(row, Failure)] == []
    by = {file: off(row, images / file, preprocess) for file, row in found.items()}
    jpegs = {file for file in found if file.endswith(".jpg")}
    if name == "graph":
        assert {file: edges for file in jpegs if (edges := beyond_dali(by[file], preprocess))} == {}
    exact = set(found) - (jpegs if name in ("turbo", "graph", "gpu") else set())
    allowed = 0
    if name == "turbo":  # rounds in its own way, and so does more where a filter overshoots or only a crop is made
        allowed = 3 if preprocess.interpolation == "bilinear" else 6
    assert {file: by[file].max() for file in exact if by[file].max() > allowed} == {}
    mean = {"turbo": 0.5, "gpu": 2, "graph": 1.2 if preprocess.interpolation == "lanczos" else 0.4}.get(name, 0.5)
    assert {file: pixels.mean() for file, pixels in by.items() if pixels.mean() > mean} == {}


def beyond_dali(by: npt.NDArray[np.uint8], preprocess: Preprocess) -> str:
    """What of a difference is more than DALI's way to resize accounts for, if anything.

    Its linear filter is Pillow's, to the rounding, but for the outermost pixels, where it repeats the edge and Pillow
    leaves out what is not there. The other filters overshoot, which Pillow cuts off between rows and columns.
    """
    inner, edge = (1, 15) if preprocess.interpolation == "bilinear" else (8, 8)
    found = by[1:-1, 1:-1].max(), by.max()
    return "" if found[0] <= inner and found[1] <= edge else f"{found[0]} inside, {found[1]} at the edge"


@GEOMETRY
@pytest.mark.parametrize("opened", ["graph", pytest.param("gpu", marks=pytest.mark.gpu)], indirect=True)
def test_real_slides_differ_by_no_more_than_the_resizing_does(opened: Open, name: str, preprocess: Preprocess) -> None:
    paths = [path for folder in REAL for path in sorted((DATA / folder).rglob("*.jpg"))][::100]
    if not paths:
        pytest.skip("the real images of shared/data are not here")
    found = rows(list(opened(preprocess).decode([Slide(str(DATA), str(path.relative_to(DATA))) for path in paths])))
    assert [str(row) for row in found.values() if isinstance(row, Failure)] == []
    by = {file: off(row, DATA / file, preprocess) for file, row in found.items()}
    if name == "graph":
        assert {file: edges for file, pixels in by.items() if (edges := beyond_dali(pixels, preprocess))} == {}
    assert len(by) == len(paths)
    assert np.mean([pixels.mean() for pixels in by.values()]) < (0.2 if name == "graph" else 2)


@pytest.mark.parametrize("name", [TURBO, "dali", "pillow"])
@pytest.mark.parametrize(
    "preprocess",
    [
        Preprocess((61, 83), interpolation="nearest"),
        Preprocess((64, 40), "shorter", 75, "nearest"),
        Preprocess(resize="shorter", interpolation="nearest"),
    ],
    ids=lambda p: f"{p.resize}-{p.size_px}",
)
def test_pixels_of_the_nearest_place_are_exactly_those_of_training(
    name: str, images: Path, preprocess: Preprocess
) -> None:
    with closing(open_named(name, preprocess)) as decoder:
        found = rows(list(decoder.decode(slides(images))))
    assert len(found) == len(FORMATS) + len(ODD_SIZES)
    assert {file: most for file, row in found.items() if (most := off(row, images / file, preprocess).max())} == {}


def draw_hard(folder: Path, width: int, height: int) -> None:
    """What is lost first at a reduced scale, and rounded one way throughout: noise, stripes, boards, dots, edges."""
    down, across = np.mgrid[:height, :width]
    rng = np.random.default_rng(3)
    noise = rng.integers(0, 256, (height, width, 3), np.uint8)
    field = np.asarray(draw_field(rng, width, height)).copy()
    field[: height // 3, : width // 3] = (across % 3 < 1)[: height // 3, : width // 3, None] * 255
    hard = {"noise": noise, "grey-noise": noise[..., :1].repeat(3, axis=2), "part": field}
    for period in (2, 3, 4, 5, 6, 8, 12, 16):
        lit = across % period < period / 2
        hard[f"stripes{period}"] = lit[..., None].repeat(3, axis=2) * np.uint8(255)
        hard[f"board{period}"] = (lit ^ (down % period < period / 2))[..., None].repeat(3, axis=2) * np.uint8(255)
        hard[f"tints{period}"] = np.where(lit[..., None], (255, 0, 80), (0, 200, 255)).astype(np.uint8)
    hard["dots"] = ((across % 7 < 3) & (down % 5 < 2))[..., None].repeat(3, axis=2) * np.uint8(255)
    for name, pixels in hard.items():
        for quality in (50, 90, 100):
            Image.fromarray(pixels).save(folder / f"{name}-{quality}.jpg", quality=quality)
        Image.fromarray(pixels).save(folder / f"{name}.png", compress_level=1)


@pytest.mark.skipif(not find_spec("simplejpeg"), reason="simplejpeg is missing")
@pytest.mark.parametrize(("size", "preprocess"), [
    ((640, 480), Preprocess()),
    ((1024, 768), Preprocess((64, 64))),
    ((501, 457), Preprocess((299, 299), "shorter", 342)),
    ((801, 600), Preprocess((97, 151), "shorter", 160, "bicubic")),
    ((333, 700), Preprocess(interpolation="lanczos")),
    ((448, 448), Preprocess((32, 32))),
    ((448, 448), Preprocess(interpolation="lanczos")),
], ids=lambda value: str(value) if isinstance(value, tuple) else f"{value.resize}-{value.size_px}")  # fmt: skip
def test_turbo_stays_within_half_a_level_of_training_whatever_the_image_shows(
    size: tuple[int, int], preprocess: Preprocess, tmp_path: Path
) -> None:
    draw_hard(tmp_path, *size)
    for number, path in enumerate(sorted((DATA / "bccd").rglob("*.jpg"))[::40]):
        (tmp_path / f"real{number}.jpg").symlink_to(path)
    with closing(open_named("turbo", preprocess)) as decoder:
        found = rows(list(decoder.decode(slides(tmp_path))))
    assert [str(row) for row in found.values() if isinstance(row, Failure)] == []
    by = {file: off(row, tmp_path / file, preprocess).mean() for file, row in found.items()}
    assert len(by) >= 84
    assert {file: mean for file, mean in by.items() if mean > 0.5} == {}


@pytest.mark.parametrize("name", ["turbo", "pillow"])
def test_a_cpu_needs_no_dali(name: str, images: Path) -> None:
    code = (
        "import sys; sys.modules['nvidia'] = sys.modules['nvidia.dali'] = None\n"
        "from tests.contract.test_variants import *\n"
        "with closing(open_decoder(sys.argv[1], INPUT, DecoderOptions(8, 2, 10**7))) as decoder:\n"
        "    names = sorted(path.name for path in Path(sys.argv[2]).iterdir())\n"
        "    batches = decoder.decode(Slide(sys.argv[2], name) for name in names)\n"
        "    print(sum(len(batch.slides) for batch in batches), len(names))\n"
        "try:\n"
        "    open_decoder('dali', INPUT, DecoderOptions(8, 2, 10**7))\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, name, images], cwd=ROOT, capture_output=True, text=True)
    count = len(FORMATS) + len(ODD_SIZES)
    assert done.stdout.splitlines() == [
        f"{count} {count}",
        "DecoderError decoder 'dali' needs nvidia.dali, which is not installed; run: pip install 'batchcls[gpu]', "
        "or decode on the CPU with --decoder turbo or --decoder pillow",
    ], done.stderr


def test_sizes_are_those_stored_whatever_exif_says(opened: Open, images: Path) -> None:
    batches = list(opened().decode(slides(images)))
    sizes = {slide.path: size for batch in batches for slide, size in zip(batch.slides, batch.sizes, strict=True)}
    assert {sizes.pop(name) for name in FORMATS} == {(151, 97)}
    assert sorted(sizes.values()) == sorted(ODD_SIZES)


def test_more_files_than_a_batch_come_in_batches_that_stay_as_they_were(opened: Open, fields: Path) -> None:
    then: list[Pixels] = []
    batches: list[Batch] = []
    for batch in opened().decode(slides(fields)):
        then.append(on_host(batch.pixels).copy())
        batches.append(batch)
    assert len(rows(batches)) == 19
    assert max(batch.files for batch in batches) == 8
    for batch, pixels in zip(batches, then, strict=True):
        np.testing.assert_array_equal(on_host(batch.pixels), pixels)


def test_what_a_file_is_decoded_with_makes_no_difference(opened: Open, fields: Path) -> None:
    decoder = opened()
    whole = rows(list(decoder.decode(slides(fields))))
    others = [slides(fields)[::-1], slides(fields)[5:] + slides(fields)[:5], slides(fields)[11:12]]
    for some in others:
        found = rows(list(decoder.decode(some)))
        assert sorted(found) == sorted(slide.path for slide in some)
        for path, row in found.items():
            np.testing.assert_array_equal(row, whole[path])


def test_a_bad_file_costs_only_its_own_row(opened: Open, fields: Path, tmp_path: Path) -> None:
    whole = rows(list(opened().decode(slides(fields))))
    (tmp_path / "bad.bmp").write_bytes(draw(tmp_path / "x.bmp").read_bytes()[:-900])
    mixed = slides(fields)
    for place in (0, 9, 20):
        mixed.insert(place, Slide(str(tmp_path), "bad.bmp"))

    batches = list(opened().decode(mixed))

    assert [failure.kind for batch in batches for failure in batch.failures] == ["corrupt"] * 3
    sound = [
        (slide.path, row) for batch in batches for slide, row in zip(batch.slides, on_host(batch.pixels), strict=True)
    ]
    assert sorted(path for path, _ in sound) == sorted(whole)
    for path, row in sound:
        np.testing.assert_array_equal(row, whole[path])


@pytest.mark.parametrize("bad", [{0}, {7}, {3, 4}, {0, 2, 4, 6}, {0, 1, 2, 3, 5, 6, 7}, set(range(8))], ids=str)
def test_whichever_files_of_a_batch_are_bad_the_others_are_decoded(
    opened: Open, fields: Path, tmp_path: Path, bad: set[int]
) -> None:
    decoder = opened()
    alone = rows([batch for slide in slides(fields)[:8] for batch in decoder.decode([slide])])
    cut = draw(tmp_path / "x.bmp").read_bytes()[:-900]
    mixed = slides(fields)[:8]
    for place in bad:
        (tmp_path / f"bad{place}.bmp").write_bytes(cut)
        mixed[place] = Slide(str(tmp_path), f"bad{place}.bmp")

    batches = list(decoder.decode(mixed))

    found = rows(batches)
    assert sorted(found) == sorted(slide.path for slide in mixed)
    assert sum(batch.files for batch in batches) == 8
    for place, slide in enumerate(mixed):
        row = found[slide.path]
        if place in bad:
            assert isinstance(row, Failure)
            assert (row.kind, row.width, row.height) == ("corrupt", 64, 48)
        else:
            assert isinstance(row, np.ndarray)
            np.testing.assert_array_equal(row, alone[slide.path])


def test_a_sound_file_without_its_end_mark_in_sight_is_decoded(opened: Open, tmp_path: Path) -> None:
    whole = draw(tmp_path / "0.jpg").read_bytes()
    (tmp_path / "1.jpg").write_bytes(whole + bytes(500))
    draw(tmp_path / "2.jpg", 2)
    found = rows(list(opened().decode(slides(tmp_path))))
    assert sorted(found) == ["0.jpg", "1.jpg", "2.jpg"]
    np.testing.assert_array_equal(found["1.jpg"], found["0.jpg"])


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


@pytest.mark.parametrize("name", ON_CPU)
def test_a_file_without_permission_keeps_its_row(name: str) -> None:
    script = """if True:
        import os, sys
        from batchcls.networks.preprocess import Preprocess
        from batchcls.records import Slide
        from tests.contract.test_decoders import open_named
        decoder = open_named(sys.argv[1])
        if os.geteuid() == 0:
            os.setuid(65534)
        for batch in decoder.decode([Slide(sys.argv[2], "closed.jpg")]):
            print([failure.text for failure in batch.failures])
    """
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        draw(Path(folder) / "closed.jpg").chmod(0)
        done = subprocess.run(
            [sys.executable, "-c", script, name, folder], cwd=ROOT, capture_output=True, text=True, check=True
        )
    assert done.stdout.splitlines() == ["['unreadable: Permission denied']"]


def test_nothing_to_decode_gives_no_batch(opened: Open) -> None:
    assert list(opened().decode([])) == []


def test_closing_early_returns_soon_and_stops_the_reading(opened: Open, fields: Path) -> None:
    decoder = opened()
    list(decoder.decode(slides(fields)))
    before = set(threading.enumerate())
    endless = (slides(fields)[number % 19] for number in count())

    batches = decoder.decode(endless)
    next(batches)
    batches.close()

    assert threads_beyond(before) == []


def test_closing_does_not_wait_for_slides_that_do_not_come(opened: Open, fields: Path) -> None:
    decoder = opened()
    list(decoder.decode(slides(fields)))  # its own threads are there
    before = set(threading.enumerate())
    waiting, disk_answers, answered = threading.Event(), threading.Event(), threading.Event()

    def hanging() -> Iterator[Slide]:
        yield from slides(fields) * 3
        waiting.set()
        disk_answers.wait(PATIENCE_S)
        answered.set()

    batches = decoder.decode(hanging())
    assert [next(batches).files for _ in range(5)] == [8] * 5
    assert waiting.wait(PATIENCE_S)
    time.sleep(0.2)  # what came before is decoded by now, and more is waited for
    batches.close()
    came_back_first = not answered.is_set()
    disk_answers.set()

    assert came_back_first
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


def test_a_jpeg_of_thousands_of_scans_is_refused(opened: Open, tmp_path: Path) -> None:
    content = draw(tmp_path / "few.jpg", size=(640, 480), progressive=True).read_bytes()
    last = content.rindex(b"\xff\xda")
    (tmp_path / "many.jpg").write_bytes(content[:last] + content[last:-2] * 3000 + content[-2:])
    found = rows(list(opened(Preprocess()).decode(slides(tmp_path))))
    assert isinstance(found["few.jpg"], np.ndarray)
    assert isinstance(found["many.jpg"], Failure)


@pytest.mark.skipif(not HOSTILE.is_dir(), reason="the hostile images of shared/data are not here")
@pytest.mark.parametrize("opened", ["graph", pytest.param("gpu", marks=pytest.mark.gpu)], indirect=True)
def test_where_it_is_decoded_does_not_decide_what_can_be(opened: Open) -> None:
    files = [Slide(str(HOSTILE), str(path.relative_to(HOSTILE))) for path in HOSTILE.rglob("*") if path.is_file()]

    def verdicts(decoder: Decoder) -> dict[str, str]:
        found = rows(list(decoder.decode(files)))
        return {path: row.text if isinstance(row, Failure) else "" for path, row in found.items()}

    ours = verdicts(opened(Preprocess()))
    with closing(open_named("dali", Preprocess())) as dali:
        theirs = verdicts(dali)

    assert ours == theirs
    assert 100 < sum(map(bool, ours.values())) < len(files) - 100


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda:0", marks=pytest.mark.gpu)])
def test_the_memory_of_files_may_be_used_again_once_they_are_decoded(device: str, tmp_path: Path) -> None:
    from batchcls.images.decoders.dali import GraphGroup

    if device != "cpu" and not machine.has_nvjpeg():
        pytest.skip("nvJPEG is not installed")
    for seed in range(16):
        draw(tmp_path / f"{seed:02}.jpg", seed, (320, 240), subsampling=["4:4:4", "4:2:0"][seed % 2], quality=95)
    contents = {slide: (tmp_path / slide.path).read_bytes() for slide in slides(tmp_path)}

    with closing(GraphGroup(Preprocess(), batch_size=16, threads=4, device=device)) as group:

        def decoded(*, fill: int | None) -> Pixels:
            """Pixels of all files, whose memory is filled at once, unless ``fill`` is None."""
            buffers = {slide: bytearray(content) for slide, content in contents.items()}
            views = {slide: memoryview(buffer) for slide, buffer in buffers.items()}
            files = [
                Encoded(slide, views[slide], examine(slide.path, contents[slide], 10**7), None) for slide in contents
            ]
            pixels = group(files, MemoryPool(1 << 30))
            if fill is not None:
                for buffer in buffers.values():
                    buffer[:] = bytes([fill]) * len(buffer)
            found = on_host(pixels).copy()
            for view in views.values():
                view.release()  # an error, if something still refers to the bytes
            return found

        expected = decoded(fill=None)
        for fill in range(0, 256, 51):
            np.testing.assert_array_equal(decoded(fill=fill), expected)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Error in MIXED operator `decoders.image` encountered:\nCan't allocate 603979776 bytes on device 0.", "GPU"),
        ("CUDA runtime API error cudaErrorMemoryAllocation (2):\nout of memory", "GPU"),
        ("CUDA driver API error CUDA_ERROR_OUT_OF_MEMORY (2)", "GPU"),
        ("CUDA allocation failed", "GPU"),
        ("device allocator failed", "GPU"),
        ("std::bad_alloc", "host"),
        ("Failed to decode sample #3", "file"),
    ],
)
def test_what_dali_says_of_a_full_gpu_is_told_from_a_broken_file(text: str, kind: str) -> None:
    from batchcls.images.decoders.dali_graph import translated_error

    error = translated_error(
        RuntimeError(f"Critical error in pipeline:\n{text}\nCurrent pipeline object is no longer valid.")
    )
    assert isinstance(error, {"GPU": DeviceMemoryError, "host": MemoryError, "file": RuntimeError}[kind])


FULL = """if True:
    import sys
    from contextlib import closing
    from batchcls.engine.backends import cuda
    from batchcls.errors import DecoderError
    from batchcls.images.decoders import open_decoder
    from batchcls.images.decoders.base import DecoderOptions
    from batchcls.networks.preprocess import Preprocess
    from batchcls.records import Slide

    def files_decoded(batch_size):
        with closing(
            open_decoder("dali", Preprocess(), DecoderOptions(batch_size, 8, 10**7, device="cuda:0"))
        ) as decoder:
            slides = [Slide(sys.argv[1], f"{number % 32:02}.jpg") for number in range(1024)]
            return sum(len(batch.slides) for batch in decoder.decode(slides))

    cuda.use_gpu(0)
    taken = cuda.DeviceMemory(cuda.free_bytes() - (600 << 20))
    try:
        print(files_decoded(128))
    except DecoderError as error:
        print(error)
    taken.close()
    print(files_decoded(128))
"""


@pytest.mark.gpu
def test_a_full_gpu_ends_with_the_batch_size_to_try(tmp_path: Path) -> None:
    pytest.importorskip("cuda.bindings", reason="cuda-bindings is not installed")
    for seed in range(32):
        draw(tmp_path / f"{seed:02}.jpg", seed, (1024, 768))
    # A process of its own: DALI keeps what it once took, for whoever decodes next.
    done = subprocess.run(
        [sys.executable, "-c", FULL, tmp_path], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    refused, then = done.stdout.splitlines()
    assert re.search(r"too little free memory to decode \d+ images .*--batch-size \d+", refused)
    assert then == "1024"


LEFTOVERS = """if True:
    import hashlib, sys
    from contextlib import closing
    from pathlib import Path
    from batchcls.networks.preprocess import Preprocess
    from batchcls.records import Failure, Slide
    from tests.contract.test_decoders import open_named, rows

    name, folder = sys.argv[1:]
    files = [Slide(folder, str(path.relative_to(folder))) for path in Path(folder).rglob("*") if path.is_file()]
    with closing(open_named(name, Preprocess())) as decoder:
        for path, row in rows(list(decoder.decode(files))).items():
            print(path, row.text if isinstance(row, Failure) else hashlib.sha256(row.tobytes()).hexdigest())
"""


@pytest.mark.skipif(not HOSTILE.is_dir(), reason="the hostile images of shared/data are not here")
@pytest.mark.parametrize("name", ON_CPU)
def test_what_of_a_file_cannot_be_decoded_is_not_what_lay_in_memory_before(name: str) -> None:
    def decoded(fill: int) -> list[str]:
        """Of each file, with memory that holds something when it is taken, as it does after other images."""
        done = subprocess.run(
            [sys.executable, "-c", LEFTOVERS, name, HOSTILE],
            cwd=ROOT,
            env=os.environ | {"MALLOC_PERTURB_": str(fill)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=True,
        )
        return sorted(done.stdout.splitlines())

    assert [pair for pair in zip(decoded(17), decoded(200), strict=True) if pair[0] != pair[1]] == []


@pytest.mark.parametrize("opened", [TURBO, "pillow"], indirect=True)
def test_a_long_narrow_image_takes_little_memory(opened: Open, tmp_path: Path) -> None:
    for name, size in (
        ("wide.png", (900_000, 1)),
        ("tall.png", (1, 900_000)),
        ("long.png", (20_000_000, 1)),
        ("high.png", (1, 10_000_000)),
    ):
        Image.new("L", size, 90).save(tmp_path / name)
    before = machine.peak_memory_bytes()
    found = rows(list(opened(Preprocess(), 10**8).decode(slides(tmp_path))))
    assert machine.peak_memory_bytes() - before < 600 << 20
    assert all(np.all(found[name] == 90) for name in ("wide.png", "tall.png", "long.png", "high.png"))


@pytest.mark.parametrize("name", ["a.svs", "b.NDPI", "aperio.tif"])
def test_a_whole_slide_is_refused_by_its_name_or_by_its_scanners_mark(opened: Open, tmp_path: Path, name: str) -> None:
    aperio = {270: "Aperio Image Library v12"} if name == "aperio.tif" else {}
    draw(tmp_path / "slide.tif", tiffinfo=aperio).rename(tmp_path / name)
    found = rows(list(opened().decode(slides(tmp_path))))[name]
    assert isinstance(found, Failure)
    assert found.text == "unsupported: whole slides are not decoded; cut them into tiles"


LIMITED = """if True:
    import re, resource, sys, threading
    from pathlib import Path
    from batchcls.networks.preprocess import Preprocess
    from batchcls.records import Slide
    from tests.contract.test_decoders import open_named

    name, folder = sys.argv[1:]
    settled = threading.Event()

    def coming():
        for _ in range(200):
            yield Slide(folder, "small.png")
        assert settled.wait(600)
        taken = int(re.search(r"VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) << 10
        resource.setrlimit(resource.RLIMIT_AS, (taken + (100 << 20), resource.RLIM_INFINITY))
        yield Slide(folder, "large.png")

    files = 0
    for batch in open_named(name, Preprocess(), 10**8).decode(coming()):
        files += batch.files
        if files > 100:
            settled.set()
        for failure in batch.failures:
            print(failure.text)
        for file in batch.postponed:
            print("postponed", file.slide.path, file.needed_bytes > 8000 * 8000 * 7)
"""


@pytest.mark.parametrize("name", ON_CPU)
def test_a_file_for_which_there_is_no_memory_is_postponed_and_not_called_corrupt(tmp_path: Path, name: str) -> None:
    Image.new("RGB", (8000, 8000)).save(tmp_path / "large.png")
    Image.new("RGB", (60, 60)).save(tmp_path / "small.png")

    done = subprocess.run(
        [sys.executable, "-c", LIMITED, name, tmp_path], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S
    )

    assert (done.stdout, done.stderr) == ("postponed large.png True\n", "")
