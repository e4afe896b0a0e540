"""No split knows a picture of another split in other clothes: recompressed, turned or mirrored."""

import csv
import io
import shutil
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from batchcls.errors import LabelsError
from batchcls.training.dataset import SplitDataset
from batchcls.training.options import SplitFractions, SplitOptions, SplitStrategy
from tests.conftest import draw

LABELS = ("early", "late")
PER_CLASS = 12
HALF = SplitFractions(0.25, 0.25)


def fields(folder: Path, per_class: int = PER_CLASS, first: int = 0) -> Path:
    """Different drawn fields of two classes."""
    for position, label in enumerate(LABELS):
        for number in range(per_class):
            draw(folder / label / f"{number}.png", seed=1000 * position + number + first, size=(96, 96))
    return folder


def recompressed(path: Path, copy: Path) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    Image.open(path).save(copy, quality=50)


def mirrored(path: Path, copy: Path) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    Image.open(path).transpose(Image.Transpose.TRANSVERSE).save(copy)


def split_table(source: Path, options: SplitOptions, console: Console) -> dict[str, dict[str, str]]:
    """The rows of the table of a split, by the images' paths below the folder."""
    stream = io.BytesIO()
    SplitDataset.read(source, options, console).write_split(stream, source)
    return {row["path"]: row for row in csv.DictReader(stream.getvalue().decode().splitlines())}


@pytest.mark.parametrize("strategy", ["random", "blocks"])
def test_near_copies_stay_in_one_split(tmp_path: Path, strategy: SplitStrategy) -> None:
    folder = fields(tmp_path / "cells")
    for number in range(0, PER_CLASS, 2):  # blocks would put the copies, which come last, into test
        recompressed(folder / "early" / f"{number}.png", folder / "early" / f"{100 + number}.jpg")
        mirrored(folder / "late" / f"{number}.png", folder / "late" / f"{100 + number}.png")
    said = io.StringIO()

    for seed in range(3):
        rows = split_table(folder, SplitOptions(strategy, HALF, seed=seed), Console(file=said, width=200))
        again = split_table(folder, SplitOptions(strategy, HALF, seed=seed), Console(quiet=True))

        assert rows == again
        assert not any(row["left_out"] for row in rows.values())
        assert {row["split"] for row in rows.values()} == {"train", "val", "test"}
        for number in range(0, PER_CLASS, 2):
            assert rows[f"early/{number}.png"]["split"] == rows[f"early/{100 + number}.jpg"]["split"]
            assert rows[f"late/{number}.png"]["split"] == rows[f"late/{100 + number}.png"]["split"]
    assert "24 images are nearly the same as others, and stay in one part with these: early/0.png" in said.getvalue()


def test_without_near_copies_images_are_groups_of_their_own(tmp_path: Path, quiet: Console) -> None:
    folder = fields(tmp_path / "cells")
    shutil.copy(folder / "early" / "0.png", folder / "early" / "same.png")

    rows = split_table(folder, SplitOptions(fractions=HALF), quiet)

    assert "group" not in rows["early/0.png"]
    assert {path: row["left_out"] for path, row in rows.items() if row["left_out"]} == {
        "early/same.png": "same image as early/0.png"
    }


def test_groups_that_share_a_picture_are_one_group(tmp_path: Path, quiet: Console) -> None:
    folder = tmp_path / "cells"
    for position, label in enumerate(LABELS):
        for patient in range(8):
            for number in range(2):
                seed = 1000 * position + 10 * patient + number
                draw(folder / label / f"p{patient}-{label}-{number}.png", seed=seed, size=(96, 96))
    mirrored(folder / "early" / "p0-early-0.png", folder / "early" / "p5-early-7.png")
    mirrored(folder / "early" / "p5-early-1.png", folder / "early" / "p7-early-7.png")

    for seed in range(4):
        options = SplitOptions(fractions=HALF, group_by=r"(p\d-\w+)-\d", seed=seed)
        rows = split_table(folder, options, quiet)

        patients = [row for path, row in rows.items() if path.startswith(("early/p0", "early/p5", "early/p7"))]
        assert len(patients) == 8
        assert len({row["split"] for row in patients}) == 1
        assert len({row["group"] for row in patients}) == 1


def test_near_copies_with_other_labels_are_left_out_as_equal_ones_are(tmp_path: Path, quiet: Console) -> None:
    folder = fields(tmp_path / "cells")
    recompressed(folder / "early" / "3.png", folder / "late" / "30.jpg")

    rows = split_table(folder, SplitOptions(fractions=HALF), quiet)

    assert {path: row["left_out"] for path, row in rows.items() if row["left_out"]} == {
        "early/3.png": "nearly the same image as late/30.jpg, in a set with several labels",
        "late/30.jpg": "nearly the same image as early/3.png, in a set with several labels",
    }


def test_of_named_splits_the_copy_in_test_stays(tmp_path: Path, quiet: Console) -> None:
    folder = tmp_path / "cells"
    for position, split in enumerate(("train", "val", "test")):
        fields(folder / split, 4, first=100 * position)
    mirrored(folder / "test" / "late" / "0.png", folder / "train" / "late" / "leak.png")
    recompressed(folder / "train" / "early" / "1.png", folder / "train" / "early" / "1-again.jpg")

    rows = split_table(folder, SplitOptions(), quiet)

    assert {path: row["left_out"] for path, row in rows.items() if row["left_out"]} == {
        "train/late/leak.png": "nearly the same image as test/late/0.png, which is in test"
    }
    assert rows["train/early/1-again.jpg"]["split"] == "train"


def test_a_class_of_one_picture_is_refused(tmp_path: Path, quiet: Console) -> None:
    folder = fields(tmp_path / "cells")
    draw(folder / "rare" / "0.png", seed=5000, size=(96, 96))
    for number in range(1, 5):
        Image.open(folder / "rare" / "0.png").save(folder / "rare" / f"{number}.jpg", quality=50 + 10 * number)

    with pytest.raises(LabelsError, match="class 'rare' has 1 image or group that can be used"):
        split_table(folder, SplitOptions(fractions=HALF), quiet)
