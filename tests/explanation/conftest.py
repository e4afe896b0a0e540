"""A detector of squares as a trained file and as an engine, images, and what the engine says of these."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from rich.console import Console

from batchcls.building.build import BuildOptions, build_engine
from tests.commandline import invoked
from tests.explanation.detector import RECIPE, detector, draw_squares


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for one another on a busy machine take 40 times as long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trained") / "detector.pth"
    torch.save(detector().state_dict(), path)
    return path


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipes") / "recipe.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="session")
def engine(checkpoint: Path, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engines") / "detector"
    build_engine(checkpoint, folder, BuildOptions(recipe), Console(quiet=True))
    return folder


@pytest.fixture(scope="session")
def labeled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two squares that are found, two that are too dim, one field that is rightly empty, one that is broken."""
    folder = tmp_path_factory.mktemp("labeled")
    draw_squares(folder / "square" / "one.png", (30, 50))
    draw_squares(folder / "square" / "two.png", (30, 50), (130, 130))
    draw_squares(folder / "square" / "dim.png")
    shutil.copy(folder / "square" / "dim.png", folder / "square" / "dim.jpg")
    draw_squares(folder / "nothing" / "empty.png")
    (folder / "nothing" / "broken.png").write_bytes((folder / "square" / "one.png").read_bytes()[:200])
    return folder


@pytest.fixture(scope="session")
def predicted(engine: Path, labeled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("predicted") / "predictions.parquet"
    result = invoked(labeled, "--out", path, "--engine", engine, "--backend", "openvino")
    assert result.exit_code == 0, result.output
    return path
