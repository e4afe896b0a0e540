"""Kernels that a GPU compiled for a plan are kept beside it, and are read by the like of it alone."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batchcls.building.engine_folder import check_replaceable
from batchcls.engine.backends.runtime_cache import KernelFile
from batchcls.engine.plan_sidecar import Target
from tests.conftest import draw

HERE = Target("tensorrt_rtx", "1.7.1.116", "sm86", "NVIDIA GeForce RTX 3060", "580.95", "13.0")
KERNELS = bytes(range(256)) * 40


@pytest.fixture
def file(tmp_path: Path) -> KernelFile:
    """The file of a plan in an engine folder, with kernels in it."""
    (tmp_path / "plans").mkdir()
    file = KernelFile(tmp_path, "ab" * 32, HERE)
    file.write(KERNELS)
    return file


def test_kernels_come_back_as_they_were_beside_their_plan(file: KernelFile) -> None:
    assert file.read() == KERNELS
    assert [path.name for path in (file.folder / "plans").iterdir()] == [f"{HERE.stem}.kernels"]


@pytest.mark.parametrize(
    "change",
    [
        {"plan_sha256": "cd" * 32},
        {"here": replace(HERE, driver="590.10")},
        {"here": replace(HERE, cuda="13.1")},
        {"here": replace(HERE, version="1.8.0.1")},
    ],
    ids=lambda change: str(next(iter(change))),
)
def test_kernels_of_another_plan_or_driver_are_not_read_and_are_replaced(
    change: dict[str, Any], file: KernelFile
) -> None:
    other = replace(file, **change)
    assert other.read() == b""

    other.write(b"new")

    assert (other.read(), file.read()) == (b"new", b"")


def test_two_kinds_of_gpu_keep_their_kernels_apart(file: KernelFile) -> None:
    other = replace(file, here=replace(HERE, gpu="NVIDIA RTX A2000"))
    assert other.read() == b""

    other.write(b"of the other")

    assert (other.read(), file.read()) == (b"of the other", KERNELS)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "spoil",
    [
        flip,
        lambda path: os.truncate(path, path.stat().st_size - 1),
        lambda path: os.truncate(path, 0),
        lambda path: os.truncate(path, 1 << 24),
        lambda path: path.write_bytes(path.read_bytes().partition(b"\n")[0]),
        lambda path: draw(path, format="JPEG"),
        Path.unlink,
        lambda path: (path.unlink(), path.mkdir()),
        lambda path: (path.unlink(), os.mkfifo(path)),
        lambda path: (path.unlink(), path.symlink_to("nowhere")),
    ],
    ids=["flipped", "truncated", "empty", "longer", "heading", "jpeg", "missing", "folder", "pipe", "dangling"],
)
def test_what_is_damaged_never_reaches_tensorrt(spoil: Callable[[Path], Any], file: KernelFile) -> None:
    spoil(file.path)

    assert file.read() == b""


def test_a_folder_that_takes_no_kernels_is_no_error(file: KernelFile, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "batchcls.tensorrt")
    (file.folder / "plans").rename(file.folder / "elsewhere")
    (file.folder / "plans").symlink_to("elsewhere")  # as root, a test can write to a read-only folder

    file.write(b"new")

    assert file.read() == KERNELS
    assert "the kernels compiled for NVIDIA GeForce RTX 3060 are not kept: " in caplog.text


def test_a_folder_with_kernels_is_still_an_engine_folder_that_a_build_replaces(
    file: KernelFile, tiny_engine: Path
) -> None:
    for name in ("engine.json", "model.onnx"):
        (file.folder / name).write_bytes((tiny_engine / name).read_bytes())

    check_replaceable(file.folder)
