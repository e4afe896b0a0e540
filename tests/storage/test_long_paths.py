"""Files and folders below paths that are longer than one system call takes."""

import errno
import gc
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from batchcls.cli import main
from batchcls.images.sources import slide_exists
from batchcls.images.sources.folder import FolderSource
from batchcls.images.thumbnails import thumbnail
from batchcls.records import Slide
from batchcls.storage import long_paths
from tests.conftest import draw

NAME = "ä" * 127 + "x"
"""255 bytes, the most that a name may have."""


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[str]:
    """A folder whose path has over 10,000 bytes, made relative to handles, with an image and links in it."""
    held = os.open(tmp_path, os.O_PATH)
    path = str(tmp_path)
    for _ in range(40):
        os.mkdir(NAME, dir_fd=held)
        inner = os.open(NAME, os.O_PATH, dir_fd=held)
        os.close(held)
        held, path = inner, f"{path}/{NAME}"
    os.close(os.open(f"{NAME[:-4]}.jpg", os.O_CREAT | os.O_WRONLY, dir_fd=held))
    descriptor = os.open("a.jpg", os.O_CREAT | os.O_WRONLY, dir_fd=held)
    os.write(descriptor, b"whole")
    os.close(descriptor)
    os.symlink("loop.jpg", "loop.jpg", dir_fd=held)
    os.symlink(str(tmp_path), "back", dir_fd=held)
    os.mkdir("elsewhere", dir_fd=held)
    os.symlink("elsewhere", "there.jpg", dir_fd=held)
    os.close(held)
    yield path
    shutil.rmtree(tmp_path)  # by handles, which pytest does not


def test_a_file_is_opened_however_long_its_path_is(deep: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (f"{deep}/a.jpg", os.path.relpath(f"{deep}/a.jpg"), f"{deep.replace('/', '//')}/./a.jpg"):
        with pytest.raises(OSError, match="File name too long"):
            os.open(path, os.O_RDONLY)

        with os.fdopen(long_paths.open_file(path, os.O_RDONLY), "rb") as stream:
            assert stream.read() == b"whole"
        assert long_paths.status(path).st_size == 5


def test_what_is_wrong_with_a_long_path_is_said_of_the_path(deep: str) -> None:
    gc.collect()  # what other tests left behind is closed now, and not in between
    open_files = len(os.listdir("/proc/self/fd"))
    for name, number in (
        ("none", errno.ENOENT),
        ("none/a.jpg", errno.ENOENT),
        ("loop.jpg", errno.ELOOP),
        ("a.jpg/b", errno.ENOTDIR),
        ("x" * 256, errno.ENAMETOOLONG),
        ("x" * 9000, errno.ENAMETOOLONG),
    ):
        with pytest.raises(OSError, match=os.strerror(number)) as caught:
            long_paths.open_file(f"{deep}/{name}", os.O_RDONLY)
        assert (caught.value.errno, caught.value.filename) == (number, f"{deep}/{name}")
    assert len(os.listdir("/proc/self/fd")) == open_files


@pytest.mark.parametrize("length", range(4090, 4102))
def test_a_path_about_as_long_as_one_call_takes_is_found(tmp_path: Path, length: int) -> None:
    missing = length - len(str(tmp_path)) - len("/a.jpg")
    names = ["d" * 200] * (missing // 201 - 1)
    left = missing - 201 * len(names)
    names += ["e" * (left // 2 - 1), "f" * (left - left // 2 - 1)]
    held = os.open(tmp_path, os.O_PATH)
    for name in names:
        os.mkdir(name, dir_fd=held)
        inner = os.open(name, os.O_PATH, dir_fd=held)
        os.close(held)
        held = inner
    os.close(os.open("a.jpg", os.O_CREAT, dir_fd=held))
    os.close(held)
    path = os.path.join(tmp_path, *names, "a.jpg")
    assert len(path) == length

    assert long_paths.status(path).st_size == 0
    assert [slide.file for slide in FolderSource([tmp_path])] == [path]
    shutil.rmtree(tmp_path)


def test_images_below_a_path_of_any_length_are_listed(deep: str, tmp_path: Path) -> None:
    listing = FolderSource([tmp_path])

    found = [slide.file for slide in listing]

    assert found == [f"{deep}/{name}" for name in ("a.jpg", "loop.jpg", f"{NAME[:-4]}.jpg")]
    assert listing.unlisted == []
    assert listing.skipped == {"folder listed already": 2}


def test_every_image_below_a_path_of_any_length_has_its_row(deep: str, tmp_path: Path, tiny_engine: Path) -> None:
    out = tmp_path.parent / f"{tmp_path.name}.parquet"
    arguments = ["run", tmp_path, "--out", out, "--engine", tiny_engine, "--device", "cpu", "--backend", "null"]

    done = CliRunner().invoke(main, list(map(str, arguments)))

    table = pq.read_table(out)
    assert done.exit_code == 0, done.output
    assert [f"{tmp_path}/{path}" for path in table["path"].to_pylist()] == [
        f"{deep}/{name}" for name in ("a.jpg", "loop.jpg", f"{NAME[:-4]}.jpg")
    ]
    assert "symbolic links" in table["error"].to_pylist()[1] or "too long" in table["error"].to_pylist()[1]


def test_a_picture_below_a_path_of_any_length_is_opened(tmp_path: Path, deep: str) -> None:
    picture = draw(tmp_path / "b.png")
    descriptor = long_paths.open_file(f"{deep}/a.jpg", os.O_WRONLY | os.O_TRUNC)
    os.write(descriptor, picture.read_bytes())
    os.close(descriptor)

    assert thumbnail(Slide(deep, "a.jpg"), 20) is not None
    assert slide_exists(Slide(deep, "a.jpg"))
    assert not slide_exists(Slide(deep, "none.jpg"))
