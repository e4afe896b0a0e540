"""A build says how images become the network's input, and whether anything but habit says so."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from batchcls.building.input_description import describe_input, input_line
from batchcls.cli import main
from batchcls.networks.preprocess import Preprocess


@pytest.mark.parametrize(
    ("preprocess", "words"),
    [
        (Preprocess(), "224x224, stretched, ImageNet mean and std"),
        (
            Preprocess(resize="shorter", interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3),
            "shorter side to 256, center 224x224, bicubic, mean and std 0.5",
        ),
        (Preprocess(size_px=(32, 64), mean=(0,) * 3, std=(1,) * 3), "64x32, stretched, values 0 to 1"),
        (
            Preprocess(channels="BGR", mean=(0.1, 0.2, 1 / 3), transform_input=True),
            "224x224, stretched, channels in the order BGR, mean 0.1 0.2 0.3333 and std 0.229 0.224 0.225, "
            "normalized once more (transform_input)",
        ),
    ],
)
def test_the_input_is_described_in_words(preprocess: Preprocess, words: str) -> None:
    assert describe_input(preprocess) == words


def test_what_nothing_says_is_called_assumed_and_what_says_it_is_named() -> None:
    assert input_line(Preprocess(), "").endswith("ImageNet mean and std (assumed; --recipe changes it)")
    assert input_line(Preprocess(), "timm's configuration of x").endswith("std (from timm's configuration of x)")


@pytest.mark.parametrize(
    ("recipe", "origin"),
    [
        ("", "(assumed; --recipe changes it)"),
        ('labels = ["a", "b", "c"]', "(assumed; --recipe changes it)"),
        ("mean = [0.5, 0.5, 0.5]", "(from recipe own.toml)"),
    ],
)
def test_a_build_says_what_the_input_is_and_info_shows_it(
    recipe: str, origin: str, tiny_onnx: Path, tmp_path: Path
) -> None:
    (tmp_path / "own.toml").write_text(recipe)
    options = ("--out", tmp_path / "e", "--labels", "a,b,c", "--device", "cpu", "--recipe", tmp_path / "own.toml")

    result = CliRunner().invoke(main, ["build", *map(str, [tiny_onnx, *options])])
    shown = CliRunner().invoke(main, ["info", str(tmp_path / "e")])

    assert result.exit_code == 0, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("input     32x32, stretched")]
    assert line.endswith(origin)
    assert f"  input: {line.removeprefix('input     ').partition(' (')[0]}\n" in shown.stdout
