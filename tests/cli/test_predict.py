"""`batchcls predict`: what a few images are, on the terminal or as JSON."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from batchcls.cli import main
from tests.commandline import PATIENCE_S, invoked
from tests.conftest import draw


def predicted(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["predict", "--device", "cpu", *map(str, arguments)])


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    broken = tmp_path / "pictures" / "broken.jpg"
    paths = [draw(tmp_path / "pictures" / f"{number}.jpg", number) for number in range(3)]
    broken.write_bytes(paths[0].read_bytes()[:400])
    return [*paths, broken]


def test_each_image_has_a_line_in_the_order_of_the_arguments(tiny_engine: Path, pictures: list[Path]) -> None:
    done = predicted("--engine", tiny_engine, *reversed(pictures[:3]))

    assert done.exit_code == 0, done.output
    for line, path in zip(done.stdout.splitlines(), reversed(pictures[:3]), strict=True):
        assert line.startswith(f"{path} ")
        label, *figures = line.removeprefix(str(path)).split()
        assert label in "abc"
        assert " ".join(figures).count("0.") >= 2


def test_json_has_the_figures_of_a_run(tiny_engine: Path, pictures: list[Path], tmp_path: Path) -> None:
    assert invoked(pictures[0].parent, "--engine", tiny_engine, "--out", tmp_path / "o.parquet").exit_code == 0
    table = pq.read_table(tmp_path / "o.parquet").to_pylist()

    done = predicted("--json", "--engine", tiny_engine, *pictures)

    assert done.exit_code == 3
    for row, expected in zip(json.loads(done.stdout), table, strict=True):
        assert row["path"].endswith(expected["path"])
        assert [row["label"], row["error"]] == [expected["label"], expected["error"]]
        by_label = dict(zip("abc", expected["probabilities"] or (), strict=False)) or None
        assert row["probabilities"] == by_label
    assert done.stdout.count("corrupt") == 1


def test_an_image_that_cannot_be_read_has_its_reason_and_exit_code_3(tiny_engine: Path, pictures: list[Path]) -> None:
    done = predicted("--engine", tiny_engine, *pictures[2:])

    assert done.exit_code == 3
    assert "corrupt: " in done.stdout.splitlines()[1]


def test_a_folder_and_a_file_that_is_not_there_are_usage_errors(tiny_engine: Path, tmp_path: Path) -> None:
    assert predicted("--engine", tiny_engine, tmp_path).exit_code == 2
    assert predicted("--engine", tiny_engine, tmp_path / "0.jpg").exit_code == 2


def test_the_command_writes_nothing_but_its_answer(tiny_engine: Path, pictures: list[Path], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "batchcls", "predict", "--device", "cpu", "--engine", tiny_engine, *pictures],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )

    assert done.returncode == 3
    assert done.stderr == ""
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"]
