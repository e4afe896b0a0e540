"""What several test files share: real data, a tiny engine, drawn images, and short ways to run things."""

import os
import shutil
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from rich.console import Console

from batchcls import machine
from batchcls.records import Slide
from benchmarks.workload import draw_field

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytest_plugins = ["tests.quantized_engines", "tests.stains"] if find_spec("onnx") else []

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("BATCHCLS_TEST_DATA", ROOT.parent / "shared" / "data"))
ALL4 = ROOT / "engines" / "all4-googlenet"

if find_spec("hypothesis"):  # a machine for GPU tests may have none
    from hypothesis import HealthCheck, settings

    settings.register_profile(
        "quick", max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("quick")

for _name in ("no_proxy", "NO_PROXY"):  # servers of tests are on this machine, which no proxy leads to
    os.environ[_name] = ",".join(filter(None, (os.environ.get(_name), "127.0.0.1", "localhost")))

Draw = Callable[..., Path]


SLOWEST_FILES = ("training/test_train.py", "building/test_instruction_sets.py", "test_docs.py", "test_benchmarks.py")
"""Test files that take minutes, slowest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked ``gpu`` where there is none, and begin with the slowest files.

    So no worker is left alone with one of these at the end.
    """
    places = {str(Path(__file__).parent / name): place for place, name in enumerate(SLOWEST_FILES)}
    items.sort(key=lambda item: places.get(str(item.path), len(places)))
    if not machine.gpus():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no NVIDIA GPU here"))


def draw(path: Path, seed: int = 0, size: tuple[int, int] = (64, 48), mode: str = "RGB", **save: Any) -> Path:
    """Draw a small stained field, and save it in the format of the path's ending or of ``format``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draw_field(np.random.default_rng(seed), *size).convert(mode).save(path, **save)
    return path


def slide_of(file: str | Path) -> Slide:
    """The slide that a file is."""
    return Slide(*os.path.split(file))


@pytest.fixture(scope="session")
def field() -> Draw:
    """`draw`, for those who do not import."""
    return draw


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """The system's Chromium."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not program:
        pytest.skip("no Chromium here; run: apt-get install chromium")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=program, args=["--no-sandbox"], timeout=600_000)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def quiet() -> Console:
    """A console that shows nothing."""
    return Console(quiet=True)


@pytest.fixture(scope="session")
def gpu_engine(tmp_path_factory: pytest.TempPathFactory, quiet: Console) -> Path:
    """The committed engine with a plan for the first GPU, made just now."""
    from batchcls.building.gpu_plans import build_plan_here
    from batchcls.building.tensorrt_plan import PlanOptions
    from batchcls.engine.backends import tensorrt_api
    from batchcls.errors import EngineError

    try:
        tensorrt_api.module_for(machine.gpu("cuda:0").sm)
    except EngineError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("engines") / "all4-googlenet"
    shutil.copytree(ALL4, folder, ignore=shutil.ignore_patterns("plans"))
    build_plan_here(folder, "cuda:0", PlanOptions(), quiet)
    return folder


@pytest.fixture(scope="session")
def tiny_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX classifier of (N, 3, 32, 32) float32 into three classes, which differ between images."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    from onnx import TensorProto, helper, numpy_helper

    typical = np.array([1.46, 1.30, 1.64])  # of drawn fields, normalised: each of the labels is met
    towards = np.random.default_rng(17).normal(0, 8, (3, 3))
    weights = {"w": towards, "b": -typical @ towards}
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["image"], ["mean"]),
            helper.make_node("Flatten", ["mean"], ["flat"]),
            helper.make_node("Gemm", ["flat", "w", "b"], ["scores"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 32, 32])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    path = tmp_path_factory.mktemp("onnx") / "tiny.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture(scope="session")
def tiny_engine(tiny_onnx: Path, tmp_path_factory: pytest.TempPathFactory, quiet: Console) -> Path:
    """An engine folder with the labels a, b and c, built from `tiny_onnx`."""
    pytest.importorskip("openvino", reason="OpenVINO, with which engines are built, is not installed")
    from batchcls.building.build import BuildOptions, build_engine  # not on machines that only run engines

    folder = tmp_path_factory.mktemp("engines") / "tiny"
    build_engine(tiny_onnx, folder, BuildOptions(values={"labels": ("a", "b", "c")}), quiet)
    return folder
