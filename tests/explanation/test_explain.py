"""`batchcls explain`: every file is accounted for, and what cannot be explained is refused."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from batchcls.engine.manifest import Manifest, sha256
from tests.explanation.commandline import explain, file_names, table
from tests.explanation.detector import LABELS, detector, draw_squares
from tests.test_architecture import HEAVY, loaded_by


def test_weights_that_are_not_numbers_are_refused(recipe: Path, tmp_path: Path) -> None:
    network = detector()
    network.get_parameter("fc.bias").data.fill_(float("nan"))
    torch.save(network.state_dict(), tmp_path / "m.pth")

    result = explain(
        tmp_path / "m.pth", draw_squares(tmp_path / "s.png", (9, 9)), "--recipe", recipe, "--out", tmp_path / "out"
    )

    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert "training went astray" in result.stderr
    assert not (tmp_path / "out").exists()


def test_every_file_has_a_row_whatever_is_wrong_with_it(
    checkpoint: Path, recipe: Path, labeled: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"

    result = explain(checkpoint, labeled, "--recipe", recipe, "--out", out)

    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0] == f"5 explained, in 3 of which nothing stands out, 1 unreadable -> {out}"
    assert f"unreadable: {labeled}/nothing/broken.png: corrupt" in capfd.readouterr().err
    rows = table(out)
    assert [row["file"] for row in rows] == sorted(map(str, labeled.rglob("*.*")))
    (broken,) = [row for row in rows if row["note"].startswith("corrupt")]
    assert (broken["file"], broken["overlay"]) == (f"{labeled}/nothing/broken.png", "")
    assert file_names(out) == {row["overlay"] for row in rows} - {""} | {"contact_sheet.jpg", "explained.csv"}
    with Image.open(out / "contact_sheet.jpg") as sheet:
        assert sheet.format == "JPEG"
        assert sheet.width > 6 * 200


def test_hostile_names_become_safe_ones_and_equal_names_stay_apart(
    checkpoint: Path, recipe: Path, tmp_path: Path
) -> None:
    plain = draw_squares(tmp_path / "plain.png", (40, 40))
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

    result = explain(checkpoint, *slides, "--recipe", recipe, "--out", tmp_path / "out")

    assert result.exit_code == 0, result.output
    overlays = [row["overlay"] for row in table(tmp_path / "out")]
    assert len(set(overlays)) == len(overlays) == len(wild) + 2
    assert file_names(tmp_path / "out") == {*overlays, "contact_sheet.jpg", "explained.csv"}
    for name in overlays:
        assert name.replace("_", "").replace("-", "").removesuffix(".cam.png").isalnum()
        assert len(os.fsencode(name)) < 200


def test_an_engine_is_explained_by_the_checkpoint_it_was_built_from(
    engine: Path, checkpoint: Path, tmp_path: Path
) -> None:
    slide = draw_squares(tmp_path / "s.png", (100, 100))
    copy = shutil.copytree(engine, tmp_path / "engines" / "e")

    named = explain(copy, slide, "--checkpoint", checkpoint, "--out", tmp_path / "named")
    missing = explain(copy, slide, "--out", tmp_path / "missing")
    shutil.copy(checkpoint, tmp_path / "engines")
    beside = explain(copy, slide, "--out", tmp_path / "found")
    (tmp_path / "engines" / checkpoint.name).write_bytes(b"another")
    another = explain(copy, slide, "--out", tmp_path / "another")

    assert (named.exit_code, beside.exit_code) == (0, 0), named.output + beside.output
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

    result = explain(tmp_path / "m.safetensors", draw_squares(tmp_path / "s.png", (9, 9)), "--out", tmp_path / "out")

    assert result.exit_code == 0, result.output
    assert table(tmp_path / "out")[0]["label"] == "yes"


def with_another_checkpoint(engine: Path, tmp_path: Path) -> tuple[str | Path, ...]:
    torch.save(detector(sure=10).state_dict(), tmp_path / "m.pth")
    return engine, draw_squares(tmp_path / "s" / "s.png"), "--checkpoint", tmp_path / "m.pth"


def with_an_unknown_class(engine: Path, tmp_path: Path) -> tuple[str | Path, ...]:
    torch.save(detector().state_dict(), tmp_path / "m.pth")
    return tmp_path / "m.pth", draw_squares(tmp_path / "s" / "s.png"), "--labels", LABELS, "--class", "circle"


def with_an_empty_folder(engine: Path, tmp_path: Path) -> tuple[str | Path, ...]:
    torch.save(detector().state_dict(), tmp_path / "m.pth")
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "notes.txt").write_text("no image")
    return tmp_path / "m.pth", tmp_path / "s", "--labels", LABELS


def without_labels(engine: Path, tmp_path: Path) -> tuple[str | Path, ...]:
    torch.save(detector().state_dict(), tmp_path / "m.pth")
    return tmp_path / "m.pth", draw_squares(tmp_path / "s" / "s.png")


def with_an_onnx_file(engine: Path, tmp_path: Path) -> tuple[str | Path, ...]:
    return engine / "model.onnx", draw_squares(tmp_path / "s" / "s.png"), "--labels", LABELS


def with_no_engine(engine: Path, tmp_path: Path) -> tuple[str | Path, ...]:
    return tmp_path, draw_squares(tmp_path / "s" / "s.png")


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
    before = file_names(tmp_path)

    result = explain(*arguments, "--out", tmp_path / "out")

    assert result.exit_code == 1, result.output
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert file_names(tmp_path) == before


def test_a_wrong_checkpoint_is_told_with_both_sums(engine: Path, tmp_path: Path) -> None:
    arguments = with_another_checkpoint(engine, tmp_path)

    result = explain(*arguments, "--out", tmp_path / "out")

    assert Manifest.read(engine).checkpoint_sha256 in result.stderr
    assert sha256(tmp_path / "m.pth") in result.stderr


def test_an_engine_built_from_onnx_has_no_layers_to_look_into(
    tiny_engine: Path, tiny_onnx: Path, tmp_path: Path
) -> None:
    result = explain(
        tiny_engine, draw_squares(tmp_path / "s.png"), "--checkpoint", tiny_onnx, "--out", tmp_path / "out"
    )

    assert result.exit_code == 1
    assert "was built from 'tiny.onnx', whose layers cannot be looked into" in result.stderr
    assert "Grad-CAM needs a checkpoint of PyTorch" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "name images: SLIDES, or --from FILE"),
        (("SLIDE", "--from", "PREDICTED", "--uncertain", "1"), "--from names the images, and so does SLIDES"),
        (("--from", "PREDICTED"), "--wrong N or --uncertain N, one of them"),
        (("--from", "PREDICTED", "--wrong", "1", "--uncertain", "1", "--truth", "."), "one of them"),
        (("--from", "PREDICTED", "--wrong", "1"), "--wrong needs true labels: --truth"),
        (("SLIDE", "--wrong", "1"), "--wrong needs predictions: --from FILE"),
        (("SLIDE", "--truth", "."), "--truth needs predictions: --from FILE"),
        (("SLIDE", "--labels", "a,b"), "is an engine folder, so --labels has no effect"),
    ],
)
def test_a_contradiction_is_a_usage_error(
    options: tuple[str, ...], message: str, engine: Path, predicted: Path, tmp_path: Path
) -> None:
    given = {"SLIDE": str(draw_squares(tmp_path / "s.png")), "PREDICTED": str(predicted)}

    result = explain(engine, *(given.get(option, option) for option in options), "--out", tmp_path / "out")

    assert result.exit_code == 2
    assert message in result.stderr
    assert file_names(tmp_path) == {"s.png"}


def test_an_output_that_is_there_is_replaced_only_where_it_is_ours_and_only_when_asked(
    checkpoint: Path, recipe: Path, tmp_path: Path
) -> None:
    slides, out = tmp_path / "s", tmp_path / "s" / "out"  # below the slides: overlays are no slides
    draw_squares(slides / "a.png", (40, 40))
    draw_squares(slides / "b.png", (40, 40))
    arguments = (checkpoint, slides, "--recipe", recipe, "--out", out)
    assert explain(*arguments).exit_code == 0
    (out / "thesis.png").write_bytes(b"three years")
    (slides / "a.png").unlink()
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    refused = explain(*arguments)
    after_refusal = {path.name: path.read_bytes() for path in out.iterdir()}
    replaced = explain(*arguments, "--overwrite")

    assert refused.exit_code == 1
    assert "is not empty; choose another --out, or replace what is there with --overwrite" in refused.stderr
    assert after_refusal == before
    assert replaced.exit_code == 0, replaced.output
    assert [Path(row["file"]).name for row in table(out)] == ["b.png", "thesis.png"]
    assert file_names(out) == {"0001_b.cam.png", "contact_sheet.jpg", "explained.csv", "thesis.png"}
    assert (out / "thesis.png").read_bytes() == b"three years"
    assert file_names(slides) == {"b.png", "out"}


def test_without_the_extra_the_command_that_brings_it_is_named(checkpoint: Path, tmp_path: Path) -> None:
    code = "import sys; sys.modules['captum'] = None; from batchcls.cli import main; main(sys.argv[1:], 'batchcls')"
    arguments = ["explain", checkpoint, draw_squares(tmp_path / "s.png"), "--out", tmp_path / "out"]

    process = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)

    assert (process.returncode, process.stdout) == (1, "")
    assert "not installed; run: pip install 'batchcls[explain]'" in process.stderr
    assert file_names(tmp_path) == {"s.png"}


def test_help_loads_nothing_heavy() -> None:
    assert loaded_by("explain", "--help") & (HEAVY | {"captum", "matplotlib"}) == set()


def test_an_empty_folder_is_filled_even_below_a_link(checkpoint: Path, recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "there" / "out").mkdir(parents=True)
    (tmp_path / "scratch").symlink_to("there")
    out = tmp_path / "scratch" / "out"

    result = explain(checkpoint, draw_squares(tmp_path / "s.png"), "--recipe", recipe, "--out", out)

    assert result.exit_code == 0, result.output
    assert file_names(out) == {"0001_s.cam.png", "contact_sheet.jpg", "explained.csv"}
    assert file_names(tmp_path) == {"there", "scratch", "s.png"}
