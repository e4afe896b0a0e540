"""`batchcls explain`: the map is hot where the evidence is, and every file is accounted for."""

import csv
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image, ImageDraw
from rich.console import Console
from safetensors.torch import save_file
from torch import nn

from batchcls.building.build import build_engine
from batchcls.cli import main
from batchcls.engine.manifest import Manifest, sha256
from batchcls.explanation.grad_cam import GradCam, overlay, stands_out
from batchcls.networks.architectures import ARCHITECTURES, CAM_LAYERS, SmallCnn, empty_network
from batchcls.networks.checkpoint import load_network
from batchcls.records import Preprocess
from tests.commandline import invoked
from tests.test_architecture import HEAVY, loaded_by

LABELS = "square,nothing"
RECIPE = 'labels = ["square", "nothing"]\nmean = [0.0, 0.0, 0.0]\nstd = [1.0, 1.0, 1.0]\n'
SIDE = 48
GAP, LINE = 8, 18
CELL = 64
"""Pixels of a picture of 448 for each of the network's 7 cells."""


def explained(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["explain", *map(str, arguments)])


def table(out: Path) -> list[dict[str, str]]:
    with (out / "explained.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def field(path: Path, *squares: tuple[int, int], size: tuple[int, int] = (224, 224), side: int = SIDE) -> Path:
    """A grey field with bright squares at places given by left and top."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size, (70, 70, 70))
    for left, top in squares:
        ImageDraw.Draw(image).rectangle((left, top, left + side - 1, top + side - 1), fill="white")
    image.save(path)
    return path


def detector(sure: float = 20) -> nn.Module:
    """A network that answers ``square`` where anything is bright, and ``nothing`` elsewhere; its weights are set."""
    network = SmallCnn(2).eval()
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.ndim == 4:
                value.zero_()
                value[0, : 3 if name == "features.0.weight" else 1, 1, 1] = 1 / 3 if value.shape[1] == 3 else 1
        network.get_parameter("features.1.bias")[0] = -0.5
        network.fc.weight.zero_()
        network.fc.weight[:, 0] = torch.tensor([sure, -sure])
        network.fc.bias.copy_(torch.tensor([0, 0.5]))
    return network


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for one another on a busy machine take 40 times as long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trained") / "detector.pth"
    torch.save(detector().state_dict(), path)
    return path


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipes") / "recipe.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def engine(checkpoint: Path, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engines") / "detector"
    build_engine(checkpoint, folder, recipe=recipe, values={}, images=None, console=Console(quiet=True))
    return folder


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two squares that are found, two that are too dim, one field that is rightly empty, one that is broken."""
    folder = tmp_path_factory.mktemp("labelled")
    field(folder / "square" / "one.png", (30, 50))
    field(folder / "square" / "two.png", (30, 50), (130, 130))
    field(folder / "square" / "dim.png")
    shutil.copy(folder / "square" / "dim.png", folder / "square" / "dim.jpg")
    field(folder / "nothing" / "empty.png")
    (folder / "nothing" / "broken.png").write_bytes((folder / "square" / "one.png").read_bytes()[:200])
    return folder


@pytest.fixture(scope="module")
def predicted(engine: Path, labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("predicted") / "predictions.parquet"
    result = invoked(labelled, "--out", path, "--engine", engine, "--backend", "openvino")
    assert result.exit_code == 0, result.output
    return path


def heat_of(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """What is coloured in the picture on the right: how much, and which pixels the most, of images that were grey."""
    whole = np.asarray(Image.open(path).convert("RGB"), np.int16)
    picture = whole[:-LINE, (whole.shape[1] + GAP) // 2 :]
    colour = picture.max(axis=2) - picture.min(axis=2)
    return colour, np.argwhere(colour >= 0.95 * colour.max())


@pytest.mark.parametrize(
    ("place", "suffix"),
    [
        ((10, 10), ".pth"),
        ((160, 20), ".pth"),
        ((88, 88), ".safetensors"),
        ((20, 165), ".pth"),
        ((170, 170), ".safetensors"),
    ],
)
def test_the_map_is_hottest_where_the_square_is(
    place: tuple[int, int], suffix: str, recipe: Path, tmp_path: Path
) -> None:
    slide, model, out = field(tmp_path / "s.png", place), tmp_path / f"m{suffix}", tmp_path / "out"
    (torch.save if suffix == ".pth" else save_file)(detector().state_dict(), model)

    result = explained(model, slide, "--recipe", recipe, "--out", out)

    assert result.exit_code == 0, result.output
    assert result.stdout == f"1 explained, 0 unreadable -> {out}\n"
    colour, hottest = heat_of(out / "0001_s.cam.png")
    assert colour.shape == (448, 448)
    left, top = (2 * value for value in place)
    row, column = hottest.mean(axis=0)
    assert top <= row < top + 2 * SIDE
    assert left <= column < left + 2 * SIDE
    assert (hottest >= (top - CELL, left - CELL)).all()
    assert (hottest < (top + 2 * SIDE + CELL, left + 2 * SIDE + CELL)).all()
    assert colour[-1 if row < 224 else 0, -1 if column < 224 else 0] <= 2  # the far corner stays grey


@pytest.mark.parametrize(
    ("more", "place", "shape", "expected"),
    [
        ("", (500, 60), (336, 448), (384, 76)),  # stretched: the whole field, in its own proportions
        ('resize = "shorter"\nshorter_px = 320\n', (180, 120), (448, 448), (102, 128)),
    ],
)
def test_the_map_lies_on_the_part_that_the_network_sees(
    more: str,
    place: tuple[int, int],
    shape: tuple[int, int],
    expected: tuple[int, int],
    checkpoint: Path,
    tmp_path: Path,
) -> None:
    slide = field(tmp_path / "s.png", place, size=(640, 480), side=96)
    (tmp_path / "recipe.toml").write_text(RECIPE + more)

    result = explained(checkpoint, slide, "--recipe", tmp_path / "recipe.toml", "--out", tmp_path / "out")

    assert result.exit_code == 0, result.output
    colour, hottest = heat_of(tmp_path / "out" / "0001_s.cam.png")
    assert colour.shape == shape
    column, row = expected
    assert np.abs(hottest.mean(axis=0) - (row, column)).max() < CELL / 2
    with Image.open(tmp_path / "out" / "0001_s.cam.png") as both:
        plain = np.asarray(both.crop((0, 0, shape[1], shape[0])).convert("L"))
    assert np.abs(np.argwhere(plain > 200).mean(axis=0) - (row, column)).max() < 3


def test_the_plain_picture_stands_on_the_left(checkpoint: Path, recipe: Path, tmp_path: Path) -> None:
    slide = field(tmp_path / "s.png", (100, 40))

    explained(checkpoint, slide, "--recipe", recipe, "--out", tmp_path / "out")

    with Image.open(tmp_path / "out" / "0001_s.cam.png") as both, Image.open(slide) as given:
        left = np.asarray(both.crop((0, 0, 448, 448)).resize((224, 224), Image.Resampling.BOX), int)
        assert np.abs(left - np.asarray(given.convert("RGB"), int)).mean() < 2


def random_network(architecture: str) -> nn.Module:
    """As `batchcls.networks.checkpoint` makes it, but with random weights."""
    network = empty_network(architecture, 3).to_empty(device="cpu").requires_grad_(False)
    generator = torch.Generator().manual_seed(5)
    for name, value in network.state_dict().items():
        if value.ndim > 1:
            value.uniform_(-1, 1, generator=generator).mul_((6 / value[0].numel()) ** 0.5)
        else:
            value.fill_(1 if name.endswith(("weight", "running_var")) else 0)
    return network


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_has_the_map_that_the_paper_defines(architecture: str) -> None:
    network, side = random_network(architecture), 128  # which all take, and soon
    pixels = np.random.default_rng(3).integers(0, 256, (1, side, side, 3), np.uint8)
    held: list[torch.Tensor] = []

    def hold(layer: nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
        held.append(output.requires_grad_())
        return output.clone()

    hook = network.get_submodule(CAM_LAYERS[architecture]).register_forward_hook(hold)
    logits = network((torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25)[0]
    hook.remove()
    gradients = [torch.autograd.grad(logits[label], held, retain_graph=True)[0] for label in range(3)]
    cells = [(gradient.mean(dim=(2, 3), keepdim=True) * held[0]).sum(dim=1).relu()[0] for gradient in gradients]
    label = max(range(3), key=lambda label: float(cells[label].detach().max()))
    expected = nn.functional.interpolate(cells[label].detach()[None, None], (side, side), mode="bilinear")[0, 0].numpy()

    preprocess = Preprocess(size_px=(side, side), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    (heat,) = GradCam(network, architecture, preprocess).maps(pixels, [label])

    assert heat.max() == 1
    np.testing.assert_allclose(heat, expected / expected.max(), atol=2e-3)


def test_a_batch_has_the_maps_of_its_images_alone(checkpoint: Path) -> None:
    grad_cam = GradCam(load_network(checkpoint).module, "cnn", Preprocess(mean=(0, 0, 0), std=(1, 1, 1)))
    pixels = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), np.uint8)
    pixels[1] = 0

    together = grad_cam.maps(pixels, [0, 0, 1])

    for row, label in enumerate([0, 0, 1]):
        np.testing.assert_allclose(together[row], grad_cam.maps(pixels[row : row + 1], [label])[0], atol=1e-5)
    assert [stands_out(heat) for heat in together] == [True, False, False]


def test_where_nothing_stands_out_the_picture_is_left_as_it_is() -> None:
    image = Image.effect_noise((64, 48), 40).convert("RGB")

    shown = overlay(image, np.zeros((32, 32), np.float32))

    assert shown.tobytes() == image.tobytes()


@pytest.mark.parametrize(("squares", "label"), [([], "square"), ([(50, 50)], "nothing")])
def test_a_map_of_nothing_says_so(
    squares: list[tuple[int, int]], label: str, checkpoint: Path, recipe: Path, tmp_path: Path
) -> None:
    slide = field(tmp_path / "s.png", *squares)

    result = explained(checkpoint, slide, "--recipe", recipe, "--class", label, "--out", tmp_path / "out")

    assert result.stdout == f"1 explained, in 1 of which nothing stands out, 0 unreadable -> {tmp_path / 'out'}\n"
    (row,) = table(tmp_path / "out")
    assert row["note"] == "nothing stands out"
    assert (row["label"], row["class_explained"]) == ("square" if squares else "nothing", label)
    assert heat_of(tmp_path / "out" / row["overlay"])[0].max() <= 2


def test_weights_that_are_not_numbers_are_refused(recipe: Path, tmp_path: Path) -> None:
    network = detector()
    network.get_parameter("fc.bias").data.fill_(float("nan"))
    torch.save(network.state_dict(), tmp_path / "m.pth")

    result = explained(
        tmp_path / "m.pth", field(tmp_path / "s.png", (9, 9)), "--recipe", recipe, "--out", tmp_path / "out"
    )

    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert "training went astray" in result.stderr
    assert not (tmp_path / "out").exists()


def test_every_file_has_a_row_whatever_is_wrong_with_it(
    checkpoint: Path, recipe: Path, labelled: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"

    result = explained(checkpoint, labelled, "--recipe", recipe, "--out", out)

    assert result.exit_code == 0, result.output
    assert result.stdout == f"5 explained, in 3 of which nothing stands out, 1 unreadable -> {out}\n"
    assert f"unreadable: {labelled}/nothing/broken.png: corrupt" in capfd.readouterr().err
    rows = table(out)
    assert [row["file"] for row in rows] == sorted(map(str, labelled.rglob("*.*")))
    (broken,) = [row for row in rows if row["note"].startswith("corrupt")]
    assert (broken["file"], broken["overlay"]) == (f"{labelled}/nothing/broken.png", "")
    assert names(out) == {row["overlay"] for row in rows} - {""} | {"contact_sheet.jpg", "explained.csv"}
    with Image.open(out / "contact_sheet.jpg") as sheet:
        assert sheet.format == "JPEG"
        assert sheet.width > 6 * 200


def test_hostile_names_become_safe_ones_and_equal_names_stay_apart(
    checkpoint: Path, recipe: Path, tmp_path: Path
) -> None:
    plain = field(tmp_path / "plain.png", (40, 40))
    wild = [
        "....png",
        "a\nb.png",
        "[red]x.png",
        "=1+1.png",
        "é" * 100 + ".png",
        "-o.png",
        "\u202egnp.png",
        "x\\..\\up.png",
    ]
    for folder, name in [*((tmp_path / "s", name) for name in wild), (tmp_path / "s" / "b", "-o.png")]:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(plain, folder / name)
    shutil.copy(plain, os.fsencode(tmp_path / "s") + b"/\xff\xfe.png")
    slides = [tmp_path / "s", tmp_path / "s" / "....png"]

    result = explained(checkpoint, *slides, "--recipe", recipe, "--out", tmp_path / "out")

    assert result.exit_code == 0, result.output
    overlays = [row["overlay"] for row in table(tmp_path / "out")]
    assert len(set(overlays)) == len(overlays) == len(wild) + 2
    assert names(tmp_path / "out") == {*overlays, "contact_sheet.jpg", "explained.csv"}
    for name in overlays:
        assert name.replace("_", "").replace("-", "").removesuffix(".cam.png").isalnum()
        assert len(os.fsencode(name)) < 200


def test_of_more_images_than_the_limit_so_many_are_taken_evenly(checkpoint: Path, recipe: Path, tmp_path: Path) -> None:
    for number in range(10):
        field(tmp_path / "s" / f"{number}.png", (40, 40))

    result = explained(checkpoint, tmp_path / "s", "--recipe", recipe, "--limit", "3", "--out", tmp_path / "out")

    assert "3 explained" in result.stdout
    assert "7 images were left out" in result.stdout
    assert [Path(row["file"]).stem for row in table(tmp_path / "out")] == ["0", "3", "6"]


def test_an_engine_is_explained_by_the_checkpoint_it_was_built_from(
    engine: Path, checkpoint: Path, tmp_path: Path
) -> None:
    slide = field(tmp_path / "s.png", (100, 100))
    copy = shutil.copytree(engine, tmp_path / "engines" / "e")

    named = explained(copy, slide, "--checkpoint", checkpoint, "--out", tmp_path / "named")
    missing = explained(copy, slide, "--out", tmp_path / "missing")
    shutil.copy(checkpoint, tmp_path / "engines")
    found = explained(copy, slide, "--out", tmp_path / "found")
    (tmp_path / "engines" / checkpoint.name).write_bytes(b"another")
    another = explained(copy, slide, "--out", tmp_path / "another")

    assert (named.exit_code, found.exit_code) == (0, 0), named.output + found.output
    assert table(tmp_path / "named") == table(tmp_path / "found")
    assert table(tmp_path / "named")[0]["label"] == "square"
    for result in (missing, another):
        assert result.exit_code == 1
        assert "Grad-CAM needs 'detector.pth'" in result.stderr
        assert sha256(checkpoint) in result.stderr
        assert "--checkpoint FILE" in result.stderr


def test_the_recipe_in_a_trained_safetensors_file_is_used(tmp_path: Path) -> None:
    said = (
        '{"recipe": {"architecture": "cnn", "labels": ["yes", "no"], "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}}'
    )
    save_file(detector().state_dict(), tmp_path / "m.safetensors", {"batchcls": said})

    result = explained(tmp_path / "m.safetensors", field(tmp_path / "s.png", (9, 9)), "--out", tmp_path / "out")

    assert result.exit_code == 0, result.output
    assert table(tmp_path / "out")[0]["label"] == "yes"


def test_the_most_confident_wrong_ones_are_chosen_from_predictions(
    engine: Path, checkpoint: Path, predicted: Path, labelled: Path, tmp_path: Path
) -> None:
    ways = ("--from", predicted, "--truth", labelled, "--wrong", "9")

    result = explained(engine, "--checkpoint", checkpoint, *ways, "--out", tmp_path / "out")

    assert result.exit_code == 0, result.output
    rows = table(tmp_path / "out")
    assert {Path(row["file"]).name for row in rows} == {"dim.jpg", "dim.png"}
    assert {(row["label"], row["truth"]) for row in rows} == {("nothing", "square")}


def test_predictions_that_another_program_wrote_again_are_explained_with_a_warning(
    engine: Path,
    checkpoint: Path,
    predicted: Path,
    labelled: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    rows = pd.read_parquet(predicted)
    rows[rows["label"] == "nothing"].to_parquet(tmp_path / "p.parquet")
    ways = ("--from", tmp_path / "p.parquet", "--truth", labelled, "--wrong", "9")

    result = explained(engine, "--checkpoint", checkpoint, *ways, "--out", tmp_path / "out")
    other = explained(checkpoint, "--labels", "nothing,square", *ways, "--out", tmp_path / "other")

    assert result.exit_code == 0, result.output
    assert {Path(row["file"]).name for row in table(tmp_path / "out")} == {"dim.jpg", "dim.png"}
    assert "warning: The predictions were written again by another program" in capfd.readouterr().err
    assert other.exit_code == 1
    assert "not in that of --labels: by its rows 'nothing' is number 2" in other.stderr


def test_folders_of_the_truth_that_are_no_classes_are_refused_or_named(
    engine: Path, checkpoint: Path, predicted: Path, labelled: Path, tmp_path: Path
) -> None:
    for view in ("Original", "Segmented"):
        shutil.copytree(labelled, tmp_path / "data" / view)
    ways = ("--checkpoint", checkpoint, "--from", predicted, "--truth", tmp_path / "data", "--wrong", "9")

    said = explained(engine, *ways, "--out", tmp_path / "out").stderr
    result = explained(engine, *ways, "--out", tmp_path / "out", "--split-folders", "test=Original")

    assert "'Original', 'Segmented', called like parts or views" in said
    assert result.exit_code == 0, result.output
    assert {row["truth"] for row in table(tmp_path / "out")} == {"square"}


def test_wrong_ones_come_by_confidence_and_match_a_table_by_absolute_path(
    engine: Path, checkpoint: Path, predicted: Path, labelled: Path, tmp_path: Path
) -> None:
    files = {f"{labelled}/square/one.png": "nothing", f"{labelled}/square/two.png": "nothing"}
    truth = tmp_path / "truth.csv"
    truth.write_text("path,label\n" + "".join(f"{path},{label}\n" for path, label in files.items()))
    ways = ("--from", predicted, "--truth", truth, "--wrong")

    both = explained(engine, "--checkpoint", checkpoint, *ways, "2", "--out", tmp_path / "both")
    one = explained(engine, "--checkpoint", checkpoint, *ways, "1", "--out", tmp_path / "one")

    assert (both.exit_code, one.exit_code) == (0, 0), both.output + one.output
    assert [Path(row["file"]).name for row in table(tmp_path / "both")] == ["two.png", "one.png"]
    assert [Path(row["file"]).name for row in table(tmp_path / "one")] == ["two.png"]


def test_the_least_certain_ones_are_chosen_and_those_that_are_gone_are_reported(
    engine: Path, checkpoint: Path, labelled: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(labelled, tmp_path / "slides")
    predictions = tmp_path / "p.parquet"
    assert invoked(folder, "--out", predictions, "--engine", engine, "--backend", "openvino").exit_code == 0
    rows = pq.read_table(predictions).to_pylist()
    readable = sorted((row for row in rows if row["label"]), key=lambda row: row["probability"])
    (folder / readable[0]["path"]).unlink()

    result = explained(
        engine, "--checkpoint", checkpoint, "--from", predictions, "--uncertain", "4", "--out", tmp_path / "out"
    )

    assert result.stdout.startswith("3 explained")
    assert "1 unreadable" in result.stdout
    assert f"{folder}/{readable[0]['path']}: missing" in capfd.readouterr().err
    found = table(tmp_path / "out")
    assert [row["file"] for row in found] == [f"{folder}/{row['path']}" for row in readable[:4]]
    assert found[0]["note"].startswith("missing")
    for row, expected in zip(found[1:], readable[1:], strict=False):
        assert row["label"] == expected["label"]
        assert float(row["probability"]) == pytest.approx(expected["probability"], abs=0.02)


def test_predictions_of_another_checkpoint_are_refused(predicted: Path, recipe: Path, tmp_path: Path) -> None:
    torch.save(detector(sure=10).state_dict(), tmp_path / "m.pth")

    result = explained(
        tmp_path / "m.pth", "--recipe", recipe, "--from", predicted, "--uncertain", "1", "--out", tmp_path / "out"
    )

    assert result.exit_code == 1
    assert "was predicted by a trained file with SHA-256" in result.stderr
    assert sha256(tmp_path / "m.pth") in result.stderr
    assert names(tmp_path) == {"m.pth"}


def test_labels_in_another_order_than_the_predictions_are_refused(
    checkpoint: Path, predicted: Path, tmp_path: Path
) -> None:
    ways = ("--from", predicted, "--uncertain", "1")

    result = explained(checkpoint, "--labels", "nothing,square", *ways, "--out", tmp_path / "out")

    assert result.exit_code == 1
    assert "has the labels ['square', 'nothing'], the model has ['nothing', 'square']" in result.stderr


def with_another_checkpoint(engine: Path, tmp_path: Path) -> tuple[str | Path, ...]:
    torch.save(detector(sure=10).state_dict(), tmp_path / "m.pth")
    return engine, field(tmp_path / "s" / "s.png"), "--checkpoint", tmp_path / "m.pth"


def with_an_unknown_class(engine: Path, tmp_path: Path) -> tuple[str | Path, ...]:
    torch.save(detector().state_dict(), tmp_path / "m.pth")
    return tmp_path / "m.pth", field(tmp_path / "s" / "s.png"), "--labels", LABELS, "--class", "circle"


def with_an_empty_folder(engine: Path, tmp_path: Path) -> tuple[str | Path, ...]:
    torch.save(detector().state_dict(), tmp_path / "m.pth")
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "notes.txt").write_text("no image")
    return tmp_path / "m.pth", tmp_path / "s", "--labels", LABELS


def without_labels(engine: Path, tmp_path: Path) -> tuple[str | Path, ...]:
    torch.save(detector().state_dict(), tmp_path / "m.pth")
    return tmp_path / "m.pth", field(tmp_path / "s" / "s.png")


def with_an_onnx_file(engine: Path, tmp_path: Path) -> tuple[str | Path, ...]:
    return engine / "model.onnx", field(tmp_path / "s" / "s.png"), "--labels", LABELS


def with_no_engine(engine: Path, tmp_path: Path) -> tuple[str | Path, ...]:
    return tmp_path, field(tmp_path / "s" / "s.png")


def with_a_table_as_predictions(engine: Path, tmp_path: Path) -> tuple[str | Path, ...]:
    torch.save(detector().state_dict(), tmp_path / "m.pth")
    (tmp_path / "p.parquet").write_text("path,label\n")
    return tmp_path / "m.pth", "--labels", LABELS, "--from", tmp_path / "p.parquet", "--uncertain", "1"


@pytest.mark.parametrize(
    ("arrange", "message"),
    [
        (with_another_checkpoint, "name the right file: --checkpoint FILE"),
        (with_an_unknown_class, "--class 'circle' is none of the model's labels ['square', 'nothing']"),
        (with_an_empty_folder, "no image was found in"),
        (without_labels, "has 2 classes, none was named; name them in its order: --labels A,B,..."),
        (with_an_onnx_file, "is an ONNX file, whose layers cannot be looked into"),
        (with_no_engine, "holds no engine.json"),
        (with_a_table_as_predictions, "is no predictions file of batchcls run"),
    ],
)
def test_what_cannot_be_explained_is_refused_and_leaves_nothing_behind(
    arrange: Callable[[Path, Path], tuple[str | Path, ...]], message: str, engine: Path, tmp_path: Path
) -> None:
    arguments = arrange(engine, tmp_path)
    before = names(tmp_path)

    result = explained(*arguments, "--out", tmp_path / "out")

    assert result.exit_code == 1, result.output
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert names(tmp_path) == before


def test_a_wrong_checkpoint_is_told_with_both_sums(engine: Path, tmp_path: Path) -> None:
    arguments = with_another_checkpoint(engine, tmp_path)

    result = explained(*arguments, "--out", tmp_path / "out")

    assert Manifest.read(engine).checkpoint_sha256 in result.stderr
    assert sha256(tmp_path / "m.pth") in result.stderr


def test_an_engine_built_from_onnx_has_no_layers_to_look_into(
    tiny_engine: Path, tiny_onnx: Path, tmp_path: Path
) -> None:
    result = explained(tiny_engine, field(tmp_path / "s.png"), "--checkpoint", tiny_onnx, "--out", tmp_path / "out")

    assert result.exit_code == 1
    assert "was built from the ONNX file 'tiny.onnx'" in result.stderr
    assert "Grad-CAM needs the checkpoint" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "name images: SLIDES, or --from FILE"),
        (("SLIDE", "--from", "PREDICTED", "--uncertain", "1"), "--from names the images, and so does SLIDES"),
        (("--from", "PREDICTED"), "--wrong N or --uncertain N, one of them"),
        (("--from", "PREDICTED", "--wrong", "1", "--uncertain", "1", "--truth", "."), "one of them"),
        (("--from", "PREDICTED", "--wrong", "1"), "--wrong needs to know what is right: --truth"),
        (("SLIDE", "--wrong", "1"), "--wrong needs predictions: --from FILE"),
        (("SLIDE", "--truth", "."), "--truth needs predictions: --from FILE"),
        (("SLIDE", "--labels", "a,b"), "is an engine folder, so --labels says nothing"),
    ],
)
def test_a_contradiction_is_a_usage_error(
    options: tuple[str, ...], message: str, engine: Path, predicted: Path, tmp_path: Path
) -> None:
    given = {"SLIDE": str(field(tmp_path / "s.png")), "PREDICTED": str(predicted)}

    result = explained(engine, *(given.get(option, option) for option in options), "--out", tmp_path / "out")

    assert result.exit_code == 2
    assert message in result.stderr
    assert names(tmp_path) == {"s.png"}


def test_an_output_that_is_there_is_replaced_only_where_it_is_ours_and_only_when_asked(
    checkpoint: Path, recipe: Path, tmp_path: Path
) -> None:
    slides, out = tmp_path / "s", tmp_path / "s" / "out"  # below the slides: overlays are no slides
    field(slides / "a.png", (40, 40))
    field(slides / "b.png", (40, 40))
    arguments = (checkpoint, slides, "--recipe", recipe, "--out", out)
    assert explained(*arguments).exit_code == 0
    (out / "thesis.png").write_bytes(b"three years")
    (slides / "a.png").unlink()
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    refused = explained(*arguments)
    after_refusal = {path.name: path.read_bytes() for path in out.iterdir()}
    replaced = explained(*arguments, "--overwrite")

    assert refused.exit_code == 1
    assert "is not empty; choose another --out, or replace what is there with --overwrite" in refused.stderr
    assert after_refusal == before
    assert replaced.exit_code == 0, replaced.output
    assert [Path(row["file"]).name for row in table(out)] == ["b.png", "thesis.png"]
    assert names(out) == {"0001_b.cam.png", "contact_sheet.jpg", "explained.csv", "thesis.png"}
    assert (out / "thesis.png").read_bytes() == b"three years"
    assert names(slides) == {"b.png", "out"}


def test_without_the_extra_the_command_that_brings_it_is_named(checkpoint: Path, tmp_path: Path) -> None:
    code = "import sys; sys.modules['captum'] = None; from batchcls.cli import main; main(sys.argv[1:], 'batchcls')"
    arguments = ["explain", checkpoint, field(tmp_path / "s.png"), "--out", tmp_path / "out"]

    process = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)

    assert (process.returncode, process.stdout) == (1, "")
    assert "not installed; run: pip install 'batchcls[explain]'" in process.stderr
    assert names(tmp_path) == {"s.png"}


def test_help_loads_nothing_heavy() -> None:
    assert loaded_by("explain", "--help") & (HEAVY | {"captum", "matplotlib"}) == set()


def test_a_label_of_the_truth_that_the_model_does_not_know_is_refused(
    engine: Path, checkpoint: Path, predicted: Path, tmp_path: Path
) -> None:
    (tmp_path / "truth.csv").write_text("path,label\nsquare/one.png,circle\n")
    ways = ("--from", predicted, "--truth", tmp_path / "truth.csv", "--wrong", "1")

    result = explained(engine, "--checkpoint", checkpoint, *ways, "--out", tmp_path / "out")

    assert result.exit_code == 1
    assert "has labels ['circle'] that the model has not; it has ['square', 'nothing']" in result.stderr


def test_an_empty_folder_is_filled_even_below_a_link(checkpoint: Path, recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "there" / "out").mkdir(parents=True)
    (tmp_path / "scratch").symlink_to("there")
    out = tmp_path / "scratch" / "out"

    result = explained(checkpoint, field(tmp_path / "s.png"), "--recipe", recipe, "--out", out)

    assert result.exit_code == 0, result.output
    assert names(out) == {"0001_s.cam.png", "contact_sheet.jpg", "explained.csv"}
    assert names(tmp_path) == {"there", "scratch", "s.png"}
