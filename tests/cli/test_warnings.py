"""What a run warns of on standard error, though it ends well."""

from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.commandline import finished
from tests.conftest import draw

if TYPE_CHECKING:
    from batchcls.training.train import TrainResult


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


def shades(folder: Path, count: int) -> Path:
    """Gray images, all of one class to an engine that looks at colors, as drawn here."""
    folder.mkdir()
    for number in range(count):
        Image.new("RGB", (40, 40), (90 + number % 5, 90, 90)).save(folder / f"{number:03}.png")
    return folder


def test_a_run_that_gives_one_label_to_everything_warns_of_it_each_time(tmp_path: Path, tiny_engine: Path) -> None:
    slides, out = shades(tmp_path / "slides", 20), tmp_path / "o.parquet"

    first, again = (finished(slides, "--out", out, "--engine", tiny_engine, "--quiet") for _ in range(2))

    (label,) = set(pq.read_table(out)["label"].to_pylist())
    for process in (first, again):
        assert process.returncode == 0
        (warning,) = [line for line in process.stderr.splitlines() if line.startswith("warning: ")]
        assert f"all 20 images have one label, '{label}', of 3 that the engine 'tiny' knows" in warning


def test_a_run_of_few_images_may_give_one_label_to_all(tmp_path: Path, tiny_engine: Path) -> None:
    process = finished(shades(tmp_path / "s", 19), "--out", tmp_path / "o.parquet", "--engine", tiny_engine, "--quiet")

    assert (process.returncode, process.stderr) == (0, "")


def trained(accuracy: float, baseline: float) -> "TrainResult":
    from batchcls.training.train import TrainResult

    figures = {
        "colour_histogram_nearest_neighbour": baseline,
        "in_other_colours": {"images": 8, "accuracy": {"none": accuracy, "hue +5 degrees": 0.1}},
    }
    return TrainResult(Path("m.safetensors"), {"val": figures})


def test_a_training_below_what_colors_alone_tell_is_warned_of() -> None:
    from batchcls.cli.train import training_warnings

    (warning,) = training_warnings(trained(0.5, 0.625))

    assert "right on 50.00% of the held-out images, and the nearest neighbor in color alone on 62.50%" in warning
    assert training_warnings(trained(0.625, 0.625)) == []
