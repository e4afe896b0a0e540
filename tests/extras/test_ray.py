"""A run on a Ray cluster: the rows of a local run, whichever nodes are lost, and one line for whatever is not there."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from batchcls.inference.local_executor import LocalExecutor
from batchcls.inference.options import RunOptions, device_configs
from batchcls.records import BatchResult, Slide
from tests.commandline import finished
from tests.conftest import draw

ray = pytest.importorskip("ray", reason="Ray is not installed")
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"
)

STORE_BYTES = 80 << 20
SLIDES = 3000


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without cores, and two nodes with a core each."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE_BYTES},
    )
    for _ in range(2):
        add_node(cluster)
    yield cluster
    cluster.shutdown()


def add_node(cluster: Any) -> Any:
    return cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Many files, few of them drawn; one in a hundred is no image."""
    folder = tmp_path_factory.mktemp("slides")
    images = [draw(tmp_path_factory.mktemp("sources") / f"{seed}.jpg", seed) for seed in range(20)]
    for number in range(SLIDES):
        if number % 100 == 7:
            (folder / f"{number:04}.jpg").write_bytes(b"no image")
        else:
            os.link(images[number % 20], folder / f"{number:04}.jpg")
    return folder


@pytest.fixture(scope="module")
def slides(folder: Path) -> list[Slide]:
    """Those files, and some that are not there."""
    return [Slide(str(folder), f"{number:04}.jpg") for number in range(SLIDES + 5)]


@pytest.fixture
def options(cluster: Any) -> RunOptions:
    """What opens soonest."""
    return RunOptions(device="cpu", backend="null", decoder="pillow", batch_size=8, cluster=cluster.address)


@pytest.fixture
def opened(tiny_engine: Path, folder: Path, options: RunOptions) -> Iterator[Callable[..., Any]]:
    """A function that opens an executor on the cluster, which is closed at the end."""
    from batchcls.inference.ray_executor import RayExecutor

    executors = []

    def open_executor(**changes: Any) -> Any:
        places = changes.pop("places", [folder])
        executors.append(RayExecutor(tiny_engine, replace(options, **changes), places, [str(folder)]))
        return executors[-1]

    yield open_executor
    for executor in executors:
        executor.close()


def answers(results: list[BatchResult]) -> dict[str, Any]:
    """The answer to each slide, of which there is one."""
    found: list[tuple[str, Any]] = []
    for result in results:
        predicted = zip(result.predictions.labels.tolist(), result.predictions.probabilities.tolist(), strict=True)
        found += [(slide.path, row) for slide, *row in zip(result.slides, result.sizes, predicted, strict=True)]
        found += [(failure.slide.path, failure.text) for failure in result.failures]
    assert max(Counter(path for path, _ in found).values(), default=1) == 1
    return dict(found)


@pytest.fixture(scope="module")
def local_answers(tiny_engine: Path, slides: list[Slide]) -> dict[str, Any]:
    """The answers of this process."""
    options = RunOptions(device="cpu", backend="null", decoder="pillow", batch_size=8)
    with closing(LocalExecutor(device_configs(tiny_engine, options)[0][0])) as executor:
        return answers(list(executor.execute(slides)))


def test_the_file_is_that_of_a_local_run(cluster: Any, folder: Path, tiny_engine: Path, tmp_path: Path) -> None:
    files = {name: tmp_path / f"{name}.parquet" for name in ("local", "cluster")}
    common = (folder, "--engine", tiny_engine, "--out")

    local = finished(*common, files["local"], "--precision", "fp32")
    done = finished(*common, files["cluster"], "--precision", "fp32", "--cluster", cluster.address)

    assert (local.returncode, done.returncode) == (0, 0), done.stderr
    assert pq.read_table(files["cluster"]).equals(pq.read_table(files["local"]))
    assert done.stderr == local.stderr, "Ray's own messages are not for the user"
    assert "openvino f32 on cpu" in done.stdout


def test_every_slide_is_answered_once_although_nodes_are_lost(
    cluster: Any, opened: Callable[..., Any], slides: list[Slide], local_answers: dict[str, Any]
) -> None:
    executor = opened()
    workers = [node for node in cluster.list_all_nodes() if not node.head]
    results: list[BatchResult] = []
    done, free_bytes = 0, [sum_of("object_store_memory")]
    for result in executor.execute(slides):
        results.append(result)
        done += result.files
        if done > (3 - len(workers)) * SLIDES // 4 and workers:
            cluster.remove_node(workers.pop(), allow_graceful=False)
            add_node(cluster)
            free_bytes.append(sum_of("object_store_memory"))

    assert workers == []
    assert answers(results) == local_answers
    assert executor.peak_memory_bytes > 20 << 20


def sum_of(resource: str) -> float:
    return float(ray.available_resources().get(resource, 0.0))
