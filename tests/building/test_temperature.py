"""How sure an engine is of itself."""

import json
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console

from batchcls.building.build import BuildOptions, build_engine
from batchcls.engine.manifest import Manifest
from batchcls.engine.probes import draw_probes
from batchcls.errors import RecipeError
from batchcls.networks.architectures import SmallCnn
from tests.commandline import invoked
from tests.conftest import draw
from tests.engines import opened_engine

VALUES = {"labels": ("a", "b", "c"), "precision": "fp32"}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("weights") / "cnn.pth"
    torch.save(SmallCnn(3).state_dict(), path)
    return path


def answers(engine: Path, size: int) -> np.ndarray:
    return logits(engine, np.random.default_rng(5).integers(0, 256, (4, size, size, 3), np.uint8))


def logits(engine: Path, pixels: np.ndarray) -> np.ndarray:
    with closing(opened_engine(engine, threads=1, precision="f32")) as opened:
        return np.array(opened.infer(pixels).logits)


@pytest.mark.parametrize("source", ["weights", "tiny_onnx"])
def test_logits_are_divided_by_it(source: str, request: pytest.FixtureRequest, tmp_path: Path, quiet: Console) -> None:
    path = request.getfixturevalue(source)
    size = 224 if source == "weights" else 32
    values = VALUES if source == "weights" else {"labels": VALUES["labels"]}

    for name, more in (("plain", {}), ("cool", {"temperature": 2.5})):
        build_engine(path, tmp_path / name, BuildOptions(values={**values, **more}), quiet)

    plain, cool = (answers(tmp_path / name, size) for name in ("plain", "cool"))
    np.testing.assert_allclose(cool, plain / 2.5, rtol=1e-4, atol=1e-5)
    manifest = Manifest.read(tmp_path / "cool")
    probes = draw_probes((size, size), manifest.probes)
    np.testing.assert_allclose(manifest.reference, logits(tmp_path / "plain", probes) / 2.5, rtol=1e-3, atol=1e-4)


def test_predictions_say_what_it_was(tiny_onnx: Path, tmp_path: Path, quiet: Console) -> None:
    engine, out = tmp_path / "engine", tmp_path / "o.parquet"
    values = {"labels": ("a", "b", "c"), "temperature": 1.5}
    build_engine(tiny_onnx, engine, BuildOptions(values=values), quiet)

    assert invoked(draw(tmp_path / "0.jpg"), "--out", out, "--engine", engine).exit_code == 0

    about = json.loads(pq.read_schema(out).metadata[b"batchcls"])
    assert about["engine"]["temperature"] == 1.5


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), 1e6])
def test_a_temperature_that_is_none_is_refused(
    tiny_onnx: Path, tmp_path: Path, quiet: Console, temperature: float
) -> None:
    values = {"labels": ("a", "b", "c"), "temperature": temperature}
    with pytest.raises(RecipeError, match="temperature"):
        build_engine(tiny_onnx, tmp_path / "engine", BuildOptions(values=values), quiet)
