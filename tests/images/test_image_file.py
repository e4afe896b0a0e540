"""What stands under the name of an image, where train, build, evaluate, report and explain open it."""

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from batchcls.images.formats.refusal import RefusedError
from batchcls.images.image_file import read_pixels
from batchcls.images.sources import read_slide
from batchcls.images.thumbnails import thumbnail
from batchcls.storage.file_names import printable
from batchcls.storage.timeouts import call_with_timeout
from batchcls.training.dataset import SplitDataset
from batchcls.training.loading import open_example
from batchcls.training.options import SplitOptions
from tests.commandline import PATIENCE_S
from tests.conftest import draw, slide_of

KINDS = ["fifo", "endless device", "folder", "sparse", "bomb", "nothing", "dangling link", "no permission"]


def bomb(side: int = 60_000) -> bytes:
    """A PNG of some bytes that says it has ``side`` x ``side`` pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def hostile(path: Path, kind: str) -> Path:
    """What is no image, under the name of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "endless device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
        case "sparse":
            with path.open("wb") as stream:
                stream.write(b"\xff\xd8\xff\xe0")
                stream.truncate(10 << 30)
        case "bomb":
            path.write_bytes(bomb())
        case "nothing":
            path.touch()
        case "dangling link":
            path.symlink_to("nowhere")
        case "no permission":
            draw(path).chmod(0)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_no_thumbnail_waits_for_it(tmp_path: Path, kind: str) -> None:
    path = hostile(tmp_path / "image.png", kind)
    if kind == "no permission" and os.access(path, os.R_OK):
        pytest.skip("root may read everything")
    assert thumbnail(slide_of(path), 32) is None


def test_a_training_leaves_all_of_it_out(tmp_path: Path) -> None:
    for label in "ab":
        for number in range(10):
            draw(tmp_path / label / f"{number}.png", seed=number + 100 * ord(label))
    for number, kind in enumerate(KINDS[:-1]):
        hostile(tmp_path / "a" / f"hostile{number}.png", kind)
    said = io.StringIO()
    dataset = SplitDataset.read(tmp_path, SplitOptions(), Console(file=said, width=1000))
    assert sum(len(split.slides) for split in dataset.splits.values()) == 20
    assert "cannot be read: not an image: it is no regular file" in said.getvalue()


@pytest.mark.parametrize("kind", ["fifo", "bomb", "dangling link"])
def test_a_training_whose_image_turns_into_it_names_the_file(tmp_path: Path, kind: str) -> None:
    hostile(tmp_path / "image.png", kind)
    code = (
        "from batchcls.records import Slide\nfrom batchcls.training.loading import open_example\n"
        f"with open_example(Slide({str(tmp_path)!r}, 'image.png')) as image: image.load()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.stderr.splitlines()[-1].count("image.png' could be read before the training, and now it cannot")


@pytest.mark.parametrize("save", [{}, {"progressive": True}, {"subsampling": 0}])
def test_a_thumbnail_has_pillows_pixels(tmp_path: Path, save: dict[str, object]) -> None:
    path = draw(tmp_path / "image.jpg", size=(700, 500), **save)
    with Image.open(path) as image:
        image.draft("RGB", (120, 120))
        small = image.convert("RGB")
        small.thumbnail((120, 120))
    found = thumbnail(slide_of(path), 120)
    assert found is not None
    assert np.array_equal(np.asarray(found), np.asarray(small))


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "webp", "jp2", "ppm", "jpg"])
def test_training_sees_pillows_pixels(tmp_path: Path, ending: str) -> None:
    path = draw(tmp_path / f"image.{ending}")
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB"))
    with open_example(slide_of(path)) as image:
        assert np.array_equal(np.asarray(image.convert("RGB")), expected)
    assert np.array_equal(read_pixels(slide_of(path)), expected)


def test_what_never_answers_is_given_up() -> None:
    source, sink = os.pipe()
    try:
        with pytest.raises(TimeoutError, match=r"no answer in 0\.2 s"):
            call_with_timeout(lambda: os.read(source, 1), 0.2)
    finally:
        os.close(sink)  # ends the read
        os.close(source)


def test_what_a_read_raises_is_raised() -> None:
    with pytest.raises(FileNotFoundError):
        call_with_timeout(lambda: os.stat("/nowhere"))
    assert call_with_timeout(lambda: 5) == 5


def test_a_file_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(bytes(100))
    with pytest.raises(RefusedError, match="it has 100 bytes"):
        read_slide(slide_of(path), 99)
    assert len(read_slide(slide_of(path), 100)) == 100


def test_names_that_are_no_utf8_are_opened(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff.png"
    with open(path, "wb") as stream:
        stream.write(draw(tmp_path / "sound.png").read_bytes())
    assert read_pixels(slide_of(os.fsdecode(path))).shape == (48, 64, 3)
    assert printable(os.fsdecode(path)).endswith("\\xff.png")
