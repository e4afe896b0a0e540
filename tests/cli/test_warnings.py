"""What a run warns of on standard error, though it ends well."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.commandline import finished
from tests.conftest import draw


def corrupt(folder: Path, count: int) -> Path:
    """So many images that are cut short."""
    whole = draw(folder.parent / "whole.jpg").read_bytes()
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:03}.jpg").write_bytes(whole[: len(whole) // 2])
    return folder


def test_a_run_that_could_decode_nothing_warns_and_ends_well(tmp_path: Path, tiny_engine: Path) -> None:
    slides, out = corrupt(tmp_path / "slides", 20), tmp_path / "o.parquet"

    process = finished(slides, "--out", out, "--engine", tiny_engine)

    assert process.returncode == 0
    assert "warning: not one of 20 files could be decoded; see whether --decoder pillow can\n" in process.stderr
    assert "20 rows, 20 unreadable" in process.stdout
    assert all(row["error"].startswith("corrupt: ") for row in pq.read_table(out).to_pylist())


@pytest.mark.parametrize("other", ["sound", "empty", "few"])
def test_a_run_that_could_decode_something_or_had_little_to_decode_does_not(
    tmp_path: Path, tiny_engine: Path, other: str
) -> None:
    slides = corrupt(tmp_path / "slides", 19)
    if other == "sound":
        draw(slides / "sound.png")
        (slides / "another.jpg").write_bytes((slides / "000.jpg").read_bytes())
    elif other == "empty":  # which no decoder was asked for
        (slides / "empty.png").touch()

    process = finished(slides, "--out", tmp_path / "o.parquet", "--engine", tiny_engine)

    assert process.returncode == 0
    assert "warning" not in process.stderr


def test_a_quiet_run_warns_all_the_same(tmp_path: Path, tiny_engine: Path) -> None:
    slides = corrupt(tmp_path / "slides", 20)

    process = finished(slides, "--out", tmp_path / "o.parquet", "--engine", tiny_engine, "--quiet")

    assert process.returncode == 0
    assert process.stdout == ""
    assert process.stderr == "warning: not one of 20 files could be decoded; see whether --decoder pillow can\n"
