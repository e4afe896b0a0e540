"""`build --verify` over class folders: the engine's accuracy, and a warning if the labels are in a wrong order."""

import json
import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import binomtest

from batchcls.building.accuracy import folder_accuracy
from batchcls.cli import main
from batchcls.engine.manifest import Manifest
from tests.conftest import draw
from tests.engines import opened_engine

LABELS = ("All-B", "all t", "HEM")


@pytest.fixture(scope="module")
def answered(tiny_onnx: Path, tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[Path, int]:
    """30 drawn images with the position of the label that the tiny network gives them without a doubt."""
    folder = tmp_path_factory.mktemp("drawn")
    paths = [draw(folder / f"{seed}.png", seed, (32, 32)) for seed in range(80)]
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])
    with closing(opened_engine(tiny_engine)) as engine:
        logits = np.concatenate([engine.infer(pixels[start : start + 20]).logits for start in range(0, len(paths), 20)])
    ordered = np.sort(logits, 1)
    clearest = np.argsort(ordered[:, 1] - ordered[:, 2])[:30].tolist()
    places = {paths[number]: int(logits[number].argmax()) for number in clearest}
    assert set(places.values()) == {0, 1, 2}
    return places


def class_folders(answered: dict[Path, int], names: tuple[str, ...], folder: Path) -> Path:
    for path, place in answered.items():
        (folder / names[place]).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / names[place])
    return folder


def built(tiny_onnx: Path, folder: Path, images: Path, labels: tuple[str, ...] = LABELS) -> Result:
    options = ("--out", folder / "e", "--labels", ",".join(labels), "--device", "cpu", "--verify", images)
    return CliRunner().invoke(main, ["build", *map(str, [tiny_onnx, *options])])


def test_over_class_folders_the_accuracy_is_said_and_recorded(
    tiny_onnx: Path, answered: dict[Path, int], tmp_path: Path
) -> None:
    images = class_folders(answered, ("ALL B", "All_T", "hem"), tmp_path / "images")
    wrong = next(path for path, place in answered.items() if place == 0)
    shutil.move(images / "ALL B" / wrong.name, images / "hem")

    result = built(tiny_onnx, tmp_path, images)

    assert result.exit_code == 0, result.output
    interval = binomtest(29, 30).proportion_ci(method="wilson")
    matches, accuracy, following = result.stdout.splitlines()[1:]
    assert matches.startswith("matches ONNX Runtime on 30 images: top-1 agreement 100.0000%")
    assert matches.endswith("on average")
    assert accuracy.startswith(
        f"accuracy  0.9667 ({interval.low:.4f} to {interval.high:.4f}) by the class folders of 30 images"
    )
    assert following == f"next      batchcls run slides/ --engine {tmp_path / 'e'} --out preds.parquet"
    assert "WRONG ORDER" not in result.stderr
    verification = Manifest.read(tmp_path / "e").verification
    assert verification is not None
    assert verification.accuracy is not None
    assert (verification.accuracy.images, verification.accuracy.accuracy) == (30, 29 / 30)
    shown = json.loads(CliRunner().invoke(main, ["info", str(tmp_path / "e"), "--json"]).stdout)
    assert shown["engine"]["verification"]["accuracy"]["images"] == 30


def test_labels_in_a_wrong_order_are_warned_of_with_the_right_one(
    tiny_onnx: Path, answered: dict[Path, int], tmp_path: Path
) -> None:
    images = class_folders(answered, ("HEM", "All-B", "all t"), tmp_path / "images")

    result = built(tiny_onnx, tmp_path, images)

    assert result.exit_code == 0, result.output
    (warning,) = [line for line in result.stderr.splitlines() if "warning" in line]
    assert "THE LABELS SEEM TO BE IN A WRONG ORDER" in warning
    assert "0.00% are right; in the order HEM, All-B, all t it would be 100.00%" in warning
    assert warning.endswith("--labels 'HEM,All-B,all t' --overwrite")
    mended = built(tiny_onnx, tmp_path / "again", images, ("HEM", "All-B", "all t"))
    assert "accuracy  1.0000 (0." in mended.stdout
    assert "WRONG ORDER" not in mended.stderr


@pytest.mark.parametrize(
    "names",
    [("one", "two", "three"), (".", ".", "."), ("All-B", "all t", "else")],
    ids=["other names", "no folders", "one other name"],
)
def test_without_folders_called_like_labels_it_is_said_that_accuracy_was_not_checked(
    names: tuple[str, ...], tiny_onnx: Path, answered: dict[Path, int], tmp_path: Path
) -> None:
    result = built(tiny_onnx, tmp_path, class_folders(answered, names, tmp_path / "images"))

    assert result.exit_code == 0, result.output
    assert "; this is no check of accuracy" in result.stdout
    assert "accuracy  " not in result.stdout


def test_the_parts_of_a_data_set_may_be_above_the_class_folders() -> None:
    paths = [f"{part}/{label}/{number}.png" for part in ("train", "test") for label in "ab" for number in range(3)]

    accuracy = folder_accuracy(paths, [0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 0], ("A", "B"))

    assert accuracy is not None
    assert (accuracy.images, accuracy.accuracy) == (12, 11 / 12)


def test_few_images_prove_no_other_order() -> None:
    accuracy = folder_accuracy(["a/0.png", "b/0.png"], [1, 0], ("a", "b"))

    assert accuracy is not None
    assert (accuracy.accuracy, accuracy.better_labels) == (0, ())


@given(st.permutations(range(5)), st.sets(st.integers(0, 4), min_size=3))
def test_the_order_that_fits_is_found_and_classes_without_images_fill_the_rest(
    order: list[int], present: set[int]
) -> None:
    labels = ("a", "b", "c", "d", "e")
    paths = [f"{labels[place]}/{number}.png" for place in sorted(present) for number in range(20)]
    predicted = [order[place] for place in sorted(present) for _ in range(20)]

    accuracy = folder_accuracy(paths, predicted, labels)

    assert accuracy is not None
    assert accuracy.accuracy == sum(order[place] == place for place in present) / len(present)
    if accuracy.accuracy < 1:
        assert sorted(accuracy.better_labels) == sorted(labels)
        assert all(accuracy.better_labels[order[place]] == labels[place] for place in present)
        assert accuracy.better_accuracy == 1
    else:
        assert accuracy.better_labels == ()
