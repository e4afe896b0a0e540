"""What every executor promises; each one, and how it is opened, stands in `EXECUTORS`."""

from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import cycle
from multiprocessing import active_children
from pathlib import Path

import pytest

from batchcls.engine.manifest import Manifest
from batchcls.errors import EngineError
from batchcls.inference.executor import DeviceConfig, Executor
from batchcls.inference.local_executor import LocalExecutor
from batchcls.inference.process_executor import ProcessExecutor
from batchcls.records import BatchResult, Slide
from batchcls.storage.memory import default_budget_bytes
from tests.conftest import draw

Open = Callable[[DeviceConfig], Executor]
EXECUTORS: dict[str, Open] = {
    "local": LocalExecutor,
    "processes": lambda config: ProcessExecutor([config, config]),
}
"""By name, a function that opens the executor."""


@pytest.fixture(params=EXECUTORS)
def open_executor(request: pytest.FixtureRequest) -> Iterator[Open]:
    before = active_children()  # of tests that ran in this process before
    yield EXECUTORS[request.param]
    assert set(active_children()) <= set(before)


@pytest.fixture
def config(tiny_engine: Path) -> DeviceConfig:
    """What opens soonest."""
    manifest, memory_bytes = Manifest.read(tiny_engine), default_budget_bytes()
    return DeviceConfig(tiny_engine, manifest, "null", "cpu", "pillow", 4, 1, 10**7, memory_bytes)


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> list[Slide]:
    """Nine images, an empty file, and a name without a file."""
    folder = tmp_path_factory.mktemp("slides")
    for number in range(9):
        draw(folder / f"{number}.png", number)
    (folder / "empty.png").touch()
    return [Slide(str(folder), name) for name in (*(f"{number}.png" for number in range(9)), "empty.png", "none.png")]


def test_every_slide_has_one_prediction_or_one_failure(
    open_executor: Open, config: DeviceConfig, slides: list[Slide]
) -> None:
    with closing(open_executor(config)) as executor, closing(executor.execute(slides)) as results:
        batches = list(results)

    predicted = [slide for batch in batches for slide in batch.slides]
    failed = {failure.slide: failure.kind for batch in batches for failure in batch.failures}
    assert sorted(slide.path for slide in [*predicted, *failed]) == sorted(slide.path for slide in slides)
    assert failed == {slides[9]: "empty", slides[10]: "missing"}
    assert all(len(batch.predictions.labels) == len(batch.sizes) == len(batch.slides) for batch in batches)
    assert executor.waiting() is None


def test_no_slides_are_no_results(open_executor: Open, config: DeviceConfig) -> None:
    with closing(open_executor(config)) as executor, closing(executor.execute([])) as results:
        assert [batch for batch in results if batch.files] == []


def test_its_info_is_the_engines(open_executor: Open, config: DeviceConfig) -> None:
    with closing(open_executor(config)) as executor:
        info = executor.info

    assert (info.labels, info.backend) == (config.manifest.labels, "null")
    assert info.device == "cpu"


def test_an_engine_that_cannot_be_opened_is_an_engine_error(
    open_executor: Open, config: DeviceConfig, tmp_path: Path
) -> None:
    missing = DeviceConfig(
        tmp_path / "nothing", config.manifest, "openvino", "cpu", "pillow", 4, 1, max_pixels=10**7, memory_bytes=2**32
    )
    with pytest.raises(EngineError):
        open_executor(missing)


def test_results_that_are_closed_early_end_the_work(
    open_executor: Open, config: DeviceConfig, slides: list[Slide]
) -> None:
    executor = open_executor(config)
    with closing(executor), closing(executor.execute(cycle(slides))) as results:
        first = next(results)

    assert isinstance(first, BatchResult)
    executor.close()  # a second time
