"""Training, and all that comes after it, as a user types it."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from batchcls.cli import main
from batchcls.networks.architectures import trainable_network
from batchcls.training.setup import default_learning_rate
from tests.commandline import PATIENCE_S, invoked, wait_for
from tests.conftest import draw

PER_CLASS = 24
TRAIN_S = 1500


def cells(folder: Path, per_class: int = PER_CLASS) -> Path:
    """Drawn fields of 64 pixels; those of the class ``striped`` have dark stripes."""
    for number in range(per_class):
        for position, label in enumerate(("plain", "striped")):
            path = draw(folder / label / f"{number}.png", seed=1000 * position + number, size=(64, 64))
            if label == "striped":
                pixels = np.asarray(Image.open(path)).copy()
                pixels[::8, :] //= 2
                Image.fromarray(pixels).save(path)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cells(tmp_path_factory.mktemp("data") / "cells")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe of small images."""
    path = tmp_path_factory.mktemp("recipe") / "small.toml"
    path.write_text("size_px = [64, 64]\n")
    return path


def training(*arguments: str | Path) -> list[str]:
    """In a process of its own: Lightning's workers are forks, which this one has too many threads for."""
    return [sys.executable, "-m", "batchcls", "train", *map(str, arguments), "--device", "cpu"]


def trained(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(training(*arguments), capture_output=True, text=True, timeout=TRAIN_S, check=False)


def refused(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["train", *map(str, arguments), "--device", "cpu"])


def cli(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)), catch_exceptions=False)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, data: Path, small: Path) -> Path:
    """A small network that tells the two classes apart."""
    out = tmp_path_factory.mktemp("trained") / "cells.safetensors"
    done = trained(
        *(data, "--out", out, "--architecture", "cnn", "--recipe", small, "--split", "blocks"),
        *("--epochs", "12", "--batch-size", "8", "--learning-rate", "0.003", "--stain", "0.3"),
    )
    assert done.returncode == 0, done.stderr
    assert "accuracy  1.0000" in done.stdout
    return out


def test_a_checkpoint_says_all_that_build_needs(checkpoint: Path) -> None:
    with safe_open(checkpoint, "pt") as file:
        about = json.loads(file.metadata()["batchcls"])

    assert about["recipe"]["architecture"] == "cnn"
    assert about["recipe"]["labels"] == ["plain", "striped"]
    assert about["recipe"]["size_px"] == [64, 64]
    assert about["training"]["course"]["learning_rate"] == 0.003
    assert about["training"]["metrics"]["parts"] == {"train": 34, "val": 6, "test": 8}
    assert {"torch", "batchcls"} <= set(about["training"]["versions"])


def test_history_curves_and_metrics_stand_beside_it(checkpoint: Path) -> None:
    metrics = json.loads(checkpoint.with_name("cells.metrics.json").read_text())["metrics"]
    history = pq.read_table(checkpoint.with_name("cells.history.parquet"))
    with Image.open(checkpoint.with_name("cells.curves.png")) as curves:
        curves.load()

    assert history["epoch"].to_pylist() == [float(epoch) for epoch in range(metrics["epochs"])]
    f1, loss = (np.array(history[name].to_pylist()) for name in ("val_f1", "val_loss"))
    best = metrics["kept_epoch"] - 1
    assert f1[best] == f1.max()
    assert loss[best] == pytest.approx(loss[f1 == f1.max()].min(), abs=1e-4)
    assert history["train_loss"][-1].as_py() < history["train_loss"][0].as_py()
    assert sum(map(sum, metrics["test"]["confusion"])) == metrics["test"]["images"] == 8
    assert len(metrics["test"]["in_other_colours"]["accuracy"]) == 7
    assert not checkpoint.with_name("cells.history.parquet.partial").exists()


def test_from_images_to_a_report_without_an_option_too_many(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    engine, preds = tmp_path / "engine", tmp_path / "preds.parquet"
    split = checkpoint.with_name("cells.split.csv")

    built = cli("build", checkpoint, "--out", engine, "--device", "cpu", "--verify", data)
    ran = invoked(data, "--out", preds, "--engine", engine)
    evaluated = cli("evaluate", preds, "--truth", split, "--split", "test", "--out", tmp_path / "evaluation")
    explained = cli("explain", checkpoint, data / "striped" / "0.png", "--out", tmp_path / "overlays")
    reported = cli("report", preds, "--out", tmp_path / "report.html")

    for result in (built, ran, evaluated, explained, reported):
        assert result.exit_code == 0, result.output
    assert "top-1 agreement 100" in built.output
    metrics = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    assert metrics["overall"]["accuracy"]["value"] == 1.0
    assert metrics["matched"]["images"] == 8
    assert (tmp_path / "overlays" / "contact_sheet.jpg").is_file()
    assert "striped" in (tmp_path / "report.html").read_text()


def test_on_a_terminal_each_epoch_gets_a_line_above_the_bar(data: Path, small: Path, tmp_path: Path) -> None:
    ours, its = os.openpty()
    command = training(data, "--out", tmp_path / "n.safetensors", "--architecture", "cnn", "--recipe", small)
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen(
        [*command, "--epochs", "2"], stdout=subprocess.DEVNULL, stderr=its, env=environment
    ) as process:
        os.close(its)
        shown = b""
        with suppress(OSError):  # a terminal's end: whoever wrote to it is gone
            while True:
                shown += os.read(ours, 4096)
    os.close(ours)

    assert process.returncode == 0, shown.decode()
    for number in (b"1", b"2"):
        assert re.search(rb"[\r\n](\x1b\[[0-9;?]*[A-Za-z])*epoch " + number + rb" of 2: loss", shown), shown.decode()
        assert re.search(rb"epoch " + number + rb" of 2 .*it/s", shown), shown.decode()


def test_a_training_that_was_killed_goes_on(data: Path, small: Path, tmp_path: Path) -> None:
    out = tmp_path / "net.safetensors"
    arguments = (data, "--out", out, "--architecture", "cnn", "--recipe", small, "--epochs", "4", "--patience", "99")
    with subprocess.Popen(training(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_for(tmp_path / "net.history.parquet.partial" / "part-000001.arrow", process)
        os.kill(process.pid, signal.SIGKILL)
    assert not out.exists()

    done = trained(*arguments)

    assert done.returncode == 0, done.stderr
    assert "going on with" in done.stderr
    assert "epoch 1 of 4" not in done.stderr
    assert pq.read_table(tmp_path / "net.history.parquet")["epoch"].to_pylist() == [0, 1, 2, 3]
    assert out.exists()


def test_a_training_that_was_killed_after_its_last_epoch_repeats_none(data: Path, small: Path, tmp_path: Path) -> None:
    out = tmp_path / "net.safetensors"
    arguments = (data, "--out", out, "--architecture", "cnn", "--recipe", small, "--epochs", "1")
    with subprocess.Popen(training(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_for(tmp_path / "net.history.parquet.partial" / "trained", process)
        os.kill(process.pid, signal.SIGKILL)

    done = trained(*arguments)

    assert done.returncode == 0, done.stderr
    assert not re.search(r"epoch \d", done.stderr)
    assert out.exists()


def test_the_same_training_again_ends_well_and_another_is_refused(data: Path, small: Path, tmp_path: Path) -> None:
    out = tmp_path / "net.safetensors"
    arguments = (data, "--out", out, "--architecture", "cnn", "--recipe", small, "--val", "0.25", "--test", "0")
    first = trained(*arguments, "--epochs", "1")
    left = tmp_path / "net.history.parquet.partial"
    left.mkdir()
    for name in ("finished", "lock", "run.json", "last.ckpt"):  # killed after the last file was in its place
        (left / name).touch()
    written = {path.name: path.read_bytes() for path in tmp_path.glob("net.*") if path.is_file()}

    again, other = trained(*arguments, "--epochs", "1"), trained(*arguments, "--epochs", "2")

    assert (first.returncode, again.returncode, other.returncode) == (0, 0, 1), again.stderr
    assert "every epoch is done" in again.stderr
    assert again.stdout == first.stdout
    assert re.search(r"exists, trained with course {'epochs': 1}; .*--overwrite", other.stderr)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == written
    assert len(written) == 5


@pytest.mark.parametrize(
    ("number", "epochs", "after"),
    [
        (signal.SIGINT, 500, "part-000000.arrow"),
        (signal.SIGTERM, 500, "part-000000.arrow"),
        (signal.SIGINT, 1, "trained"),
    ],
    ids=["SIGINT", "SIGTERM", "SIGINT after the last epoch"],
)
def test_a_signal_ends_a_training_with_the_way_to_go_on(
    number: signal.Signals, epochs: int, after: str, data: Path, small: Path, tmp_path: Path
) -> None:
    arguments = (data, "--out", tmp_path / "net.safetensors", "--architecture", "cnn", "--recipe", small)
    with subprocess.Popen(
        training(*arguments, "--epochs", str(epochs), "--patience", "500"),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        wait_for(tmp_path / "net.history.parquet.partial" / after, process)
        os.killpg(process.pid, number)  # as Ctrl-C does: those who load images hear it as well
        _, stderr = process.communicate(timeout=PATIENCE_S)

    assert process.returncode == 128 + number
    assert f"stopped by {number.name}" in stderr
    assert "run the same command again" in stderr
    assert "Traceback" not in stderr


def test_another_training_does_not_go_on_with_it(data: Path, small: Path, tmp_path: Path) -> None:
    arguments = (data, "--out", tmp_path / "net.safetensors", "--architecture", "cnn", "--recipe", small)
    with subprocess.Popen(training(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_for(tmp_path / "net.history.parquet.partial" / "run.json", process)
        os.kill(process.pid, signal.SIGKILL)

    result = refused(*arguments, "--seed", "7")

    assert result.exit_code == 1
    assert "was begun with course {'seed': 0}, images" in result.output
    assert "parting {'seed': 0}, this run has course {'seed': 7}" in result.output
    assert "start over: rm -r" in result.output


def test_an_image_that_is_gone_halfway_is_asked_for_and_then_it_goes_on(small: Path, tmp_path: Path) -> None:
    data, hidden = cells(tmp_path / "cells", 8), tmp_path / "hidden"
    arguments = (data, "--out", tmp_path / "net.safetensors", "--architecture", "cnn", "--recipe", small)
    command = training(*arguments, "--epochs", "6")
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        wait_for(tmp_path / "net.history.parquet.partial" / "part-000000.arrow", process)
        (data / "plain").rename(hidden)
        _, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert "now it cannot: No such file or directory; put it back, and run the same command again" in stderr
    assert "Traceback" not in stderr
    hidden.rename(data / "plain")

    done = trained(*arguments, "--epochs", "6")

    assert done.returncode == 0, done.stderr
    assert "going on with" in done.stderr
    assert "epoch 1 of" not in done.stderr


def test_a_loss_that_is_no_number_ends_it(data: Path, small: Path, tmp_path: Path) -> None:
    done = trained(
        *(data, "--out", tmp_path / "net.safetensors", "--architecture", "cnn", "--recipe", small),
        *("--learning-rate", "1e36", "--precision", "fp32"),
    )

    assert done.returncode == 1
    assert "loss became nan in epoch 1" in done.stderr
    assert "--learning-rate" in done.stderr
    assert list(tmp_path.iterdir()) == []  # another --learning-rate may begin at once


def test_auxiliary_heads_learn_and_are_not_needed_after(tmp_path: Path) -> None:
    data = cells(tmp_path / "few", 5)
    out = tmp_path / "net.safetensors"

    done = trained(
        *(data, "--out", out, "--epochs", "1", "--batch-size", "4", "--balance", "sampling", "--schedule", "plateau"),
        *("--val", "0.2", "--test", "0"),
    )

    assert done.returncode == 0, done.stderr
    assert load_file(out)["aux1.conv.bn.num_batches_tracked"] > 0
    built = cli("build", out, "--out", tmp_path / "engine", "--device", "cpu")
    assert built.exit_code == 0
    assert "googlenet fp16 with 2 classes" in built.output


def test_a_users_own_weights_are_a_beginning(checkpoint: Path, data: Path, small: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "three")
    for number in range(10):
        draw(tmp_path / "three" / "grey" / f"{number}.png", seed=number, size=(64, 64), mode="L")

    done = trained(
        *(tmp_path / "three", "--out", tmp_path / "net.safetensors", "--architecture", "cnn", "--recipe", small),
        *("--weights", checkpoint, "--epochs", "1", "--balance", "weights", "--learning-rate", "1e-9"),
    )

    assert done.returncode == 0, done.stderr
    assert "but for the last layer" in done.stderr
    before, after = load_file(checkpoint), load_file(tmp_path / "net.safetensors")
    assert torch.allclose(before["features.0.weight"], after["features.0.weight"], atol=1e-6)
    assert after["fc.weight"].shape == (3, 128)
    assert "it may know some that validate or test here" in done.stderr


def test_images_that_cannot_be_used_are_left_out_and_said(tmp_path: Path, small: Path) -> None:
    data = cells(tmp_path / "cells", 6)
    (data / "plain" / "broken.jpg").write_bytes(b"no image")
    shutil.copy(data / "plain" / "0.png", data / "plain" / "copy.png")
    shutil.copy(data / "plain" / "1.png", data / "striped" / "doubtful.png")
    draw(data / "beside.png")
    Image.fromarray(np.full((64, 64), 60000, np.uint16)).save(data / "plain" / "deep.png")
    Image.new("1", (64, 64)).save(data / "striped" / "one bit.tif")
    os.rename(data / "plain" / "5.png", os.fsencode(data / "plain") + b"/5\xff.png")

    done = trained(
        *(data, "--out", tmp_path / "n.safetensors", "--architecture", "cnn", "--recipe", small, "--epochs", "1"),
    )

    assert done.returncode == 0, done.stderr
    assert "left out 3 images, cannot be read: plain/broken.jpg" in done.stderr
    assert "left out 3 images, same image" in done.stderr
    assert "left out 1 images, in no class folder" in done.stderr
    with (tmp_path / "n.split.csv").open() as stream:
        out = {
            row["path"].removeprefix("cells/"): row["left_out"] for row in csv.DictReader(stream) if not row["split"]
        }
    assert out.keys() == {
        *("plain/broken.jpg", "plain/deep.png", "plain/copy.png", "plain/1.png", "striped/doubtful.png"),
        "striped/one bit.tif",
    }
    assert out["striped/doubtful.png"] == "same image as plain/1.png, with another label"


def test_the_split_that_was_written_can_be_trained_on(checkpoint: Path, small: Path, tmp_path: Path) -> None:
    split = checkpoint.with_name("cells.split.csv")
    done = trained(
        *(split, "--out", checkpoint.with_name("again.safetensors"), "--architecture", "cnn", "--recipe", small),
        *("--epochs", "1"),
    )

    assert done.returncode == 0, done.stderr
    first, again = (
        {row["path"]: row["split"] for row in csv.DictReader(path.read_text().splitlines())}
        for path in (split, checkpoint.with_name("again.split.csv"))
    )
    assert first == again


def test_folds_are_trained_on_as_they_are_said_to_be_parted(tmp_path: Path, small: Path) -> None:
    data = tmp_path / "cells"
    for fold in range(3):
        for number in range(6):
            for position, label in enumerate(("plain", "striped")):
                draw(data / f"fold_{fold}" / label / f"{number}.png", seed=100 * fold + 10 * number + position)
    shutil.rmtree(data / "fold_2" / "striped")
    arguments = (data, "--out", tmp_path / "n.safetensors", "--architecture", "cnn", "--recipe", small, "--epochs", "1")

    said = refused(*arguments).stderr
    done = trained(*arguments, "--split-folders", "train=fold_0,val=fold_1,test=fold_2")

    assert "--split-folders train=fold_0,train=fold_1,test=fold_2" in said
    assert done.returncode == 0, done.stderr
    assert "images    train 12, val 12, test 6" in done.stdout
    assert "of the classes with images: none is of striped" in done.stdout
    with (tmp_path / "n.split.csv").open() as stream:
        parts = {(row["path"].split("/")[1], row["split"]) for row in csv.DictReader(stream)}
    assert parts == {("fold_0", "train"), ("fold_1", "val"), ("fold_2", "test")}


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        ({"a": 5}, "1 class ('a') that can be used; training needs two"),
        ({"a": 9, "b": 1}, "class 'b' has 1 image"),
        ({}, "no labeled image"),
    ],
)
def test_images_that_nothing_can_be_learned_from_are_refused(
    tmp_path: Path, images: dict[str, int], reason: str
) -> None:
    (tmp_path / "data").mkdir()
    for position, (label, count) in enumerate(images.items()):
        for number in range(count):
            draw(tmp_path / "data" / label / f"{number}.png", seed=100 * position + number)

    result = refused(tmp_path / "data", "--out", tmp_path / "net.safetensors")

    assert result.exit_code == 1
    assert reason in result.output


def test_a_recipe_must_be_of_these_images_and_of_a_known_network(data: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    arguments = (data, "--out", tmp_path / "n.safetensors", "--recipe", recipe)

    recipe.write_text('architecture = "cnn"\nlabels = ["striped", "other"]\n')
    assert "the recipe has the labels ['striped', 'other'], the images ['plain'" in refused(*arguments).output
    recipe.write_text('architecture = "cnn"\nsize_px = 16\n')
    assert "cnn cannot take images of (16, 16) pixels" in refused(*arguments).output
    recipe.write_text('architecture = "resnet18"\ntransform_input = true\n')
    assert "resnet18 has no such step" in refused(*arguments).output


def test_usage_that_cannot_work_is_refused_before_an_image_is_read(data: Path, tmp_path: Path) -> None:
    existing = tmp_path / "old.safetensors"
    save_file({"fc.weight": torch.zeros(1)}, existing)
    (tmp_path / "net.split.csv").write_text("path,label\n1.jpg,a\n")

    assert "must end in .safetensors" in refused(data, "--out", tmp_path / "net.pth").output
    assert "replace it with --overwrite" in refused(data, "--out", existing).output
    assert "would replace" in refused(tmp_path / "net.split.csv", "--out", tmp_path / "net.safetensors").output
    unknown = refused(data, "--out", tmp_path / "n.safetensors", "--architecture", "efficientnet_b77")
    assert "is not known; nearest are efficientnet_b7" in unknown.output
    (tmp_path / "file").touch()
    below = refused(data, "--out", tmp_path / "file" / "net.safetensors")
    assert "net.safetensors': File exists; choose another --out" in below.output
    long = refused(data, "--out", tmp_path / f"{'n' * 245}.safetensors")
    assert "File name too long; choose another --out" in long.output
    typed = refused(data, "--out", tmp_path / "n.safetensors", "--weights", tmp_path / "mistyped.pth")
    assert "mistyped.pth'; name one, or imagenet" in typed.output
    nan = refused(data, "--out", tmp_path / "n.safetensors", "--learning-rate", "nan")
    assert "nan is no finite number" in nan.output
    assert "leave too little" in refused(data, "--out", tmp_path / "n.safetensors", "--val", "0").output


@pytest.mark.parametrize("architecture", ["alexnet", "cnn", "efficientnet_b0", "googlenet", "vgg16", "vgg16_bn"])
def test_a_network_without_batch_normalization_gets_smaller_steps(architecture: str) -> None:
    with torch.device("meta"):
        network = trainable_network(architecture, 2)
    assert default_learning_rate(network) == (1e-4 if architecture in ("vgg16", "alexnet") else 1e-3)


def test_weights_that_cannot_be_fetched_are_a_clear_error(data: Path, tmp_path: Path, small: Path) -> None:
    nowhere = {"https_proxy": "http://127.0.0.1:9", "no_proxy": ""}
    environment = {**os.environ, "TORCH_HOME": str(tmp_path / "hub"), **nowhere}
    command = training(data, "--out", tmp_path / "net.safetensors", "--weights", "imagenet", "--epochs", "1")

    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False, env=environment)

    assert done.returncode == 1
    assert "could not be fetched from https://download.pytorch.org" in done.stderr
    assert "--weights FILE" in done.stderr
