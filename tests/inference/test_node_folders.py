"""Whether a node of a cluster sees the folders of a run."""

import os
import shutil
from pathlib import Path

import pytest

from batchcls.inference.node_folders import folder_samples

TIMEOUT_S = 60.0


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    (tmp_path / "slides" / "below").mkdir(parents=True)
    for number in range(300):
        (tmp_path / "slides" / f"{number}.png").write_bytes(b"x" * number)
    os.symlink("/nowhere", tmp_path / "slides" / "broken.png")
    return tmp_path / "slides"


def differences(slides: list[Path | str], roots: list[str], moved: Path, to: Path) -> list[str]:
    """What a node reports that sees the files at ``to`` in the place of ``moved``; None for no such place."""
    samples = folder_samples(slides, roots, TIMEOUT_S)
    shutil.move(moved, moved.with_name("elsewhere"))
    if to.exists():
        shutil.move(to, moved)
    return [difference for sample in samples if (difference := sample.difference(TIMEOUT_S))]


def test_the_same_folder_is_accepted(slides: Path) -> None:
    samples = folder_samples([slides, slides / "7.png", "s3://bucket/slides", "-"], [str(slides), "s3://b"], TIMEOUT_S)

    assert [sample.folder for sample in samples] == [str(slides)] * 3
    assert [sample.difference(TIMEOUT_S) for sample in samples] == [None] * 3


def test_a_copy_of_the_folder_is_accepted(slides: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(slides, tmp_path / "copy", symlinks=True)

    assert differences([slides], [str(slides)], slides, copy) == []


def test_a_folder_that_is_not_there_is_named(slides: Path, tmp_path: Path) -> None:
    assert differences([], [str(slides)], slides, tmp_path / "none") == [f"there is no folder {str(slides)!r}"]


def test_an_empty_folder_in_its_place_is_told_by_what_it_lacks(slides: Path, tmp_path: Path) -> None:
    (tmp_path / "mount").mkdir()

    (difference,) = differences([slides], [], slides, tmp_path / "mount")

    assert difference.startswith(f"the folder {str(slides)!r} holds no ")


def test_other_files_of_the_same_names_are_told(slides: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "7.png").write_bytes(b"another")
    (tmp_path / "other" / "7.png").write_bytes(b"another one")

    assert differences([slides / "7.png"], [], slides, tmp_path / "other") == [
        f"{str(slides / '7.png')!r} is another file"
    ]


def test_many_files_are_sampled(slides: Path) -> None:
    samples = folder_samples([slides / f"{number}.png" for number in range(300)], [], TIMEOUT_S)

    assert 30 < len(samples) <= 64
