"""A training learns how its images look, and the engine that is built from its checkpoint tells novelty."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from rich.console import Console

from batchcls.cli import main
from batchcls.engine.manifest import Manifest
from batchcls.records import METADATA_KEY
from tests.commandline import invoked
from tests.stains import OTHERS

pytest.importorskip("lightning", reason="Lightning is not installed")

from safetensors import safe_open
from safetensors.torch import save_file

from batchcls.building.build import BuildOptions, build_engine


@pytest.fixture(scope="module")
def checkpoint(stains: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network after one epoch on the learned stains."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "recipe.toml").write_text("size_px = [64, 64]\n")
    options = ["--architecture", "cnn", "--epochs", "1", "--split", "blocks", "--val", "0.45", "--test", "0"]
    out = folder / "net.safetensors"
    result = CliRunner().invoke(
        main, ["train", str(stains / "learned"), "--out", str(out), "--recipe", str(folder / "recipe.toml"), *options]
    )
    assert result.exit_code == 0, result.output
    return out


def test_an_engine_from_a_training_tells_novelty(
    checkpoint: Path, stains: Path, tmp_path: Path, quiet: Console
) -> None:
    manifest = build_engine(checkpoint, tmp_path / "e", BuildOptions(), quiet)
    novel = {}
    for folder in ("own", "other"):
        result = invoked(stains / folder, "--engine", tmp_path / "e", "--out", tmp_path / f"{folder}.parquet")
        assert result.exit_code == 0, result.output
        novel[folder] = sum(pq.read_table(tmp_path / f"{folder}.parquet")["novel"].to_pylist())

    assert manifest.novelty is not None
    assert manifest.novelty["statistics"]["calibration_images"] >= 99
    assert novel["other"] >= 0.95 * OTHERS
    assert novel["own"] <= 0.1 * OTHERS


def test_novelty_of_another_network_is_left_out_and_said(checkpoint: Path, tmp_path: Path) -> None:
    key = METADATA_KEY.decode()
    with safe_open(checkpoint, "pt") as file:
        values = json.loads(file.metadata()[key])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no dictionary
    values["novelty"]["examples"] = [[2 * value for value in row] for row in values["novelty"]["examples"]]
    other = tmp_path / "other.safetensors"
    save_file(tensors, other, {key: json.dumps(values)})

    result = CliRunner().invoke(main, ["build", str(other), "--out", str(tmp_path / "e")])

    assert result.exit_code == 0, result.output
    assert "--novelty-from DIR" in result.output
    assert Manifest.read(tmp_path / "e").novelty is None
