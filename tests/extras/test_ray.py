"""A run on a Ray cluster: the rows of a local run, whichever nodes are lost, and one line for whatever is not there."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from batchcls.errors import EngineError, MemoryShortageError, SlidesError
from batchcls.inference.device_configs import device_configs
from batchcls.inference.local_executor import LocalExecutor
from batchcls.inference.options import RunOptions
from batchcls.records import BatchResult, Slide
from tests.commandline import PATIENCE_S, after_loading, command, finished, invoked, partial, wait_for
from tests.conftest import draw

cluster_utils = pytest.importorskip("ray.cluster_utils", reason="Ray is not installed")
ray = pytest.importorskip("ray", reason="Ray is not installed")

from batchcls.inference import ray_crew  # noqa: E402  # needs Ray
from batchcls.inference.ray_cluster import ClusterNode, actor_shares, cluster_device  # noqa: E402  # as above
from batchcls.inference.ray_executor import RayExecutor  # noqa: E402  # as above

pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"
)

STORE_BYTES = 80 << 20
SLIDES = 3000


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without cores, and two nodes with a core each."""
    cluster = cluster_utils.Cluster(
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
    executors = []

    def open_executor(**changes: Any) -> Any:
        places = changes.pop("places", [folder])
        executors.append(RayExecutor(tiny_engine, replace(options, **changes), places, [str(folder)]))
        return executors[-1]

    yield open_executor
    for executor in executors:
        executor.close()
    until(lambda: all(thread.name != "ray" for thread in threading.enumerate()))  # which a busy machine ends late


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
    # On a busy machine a run may begin without the second actor, and says so.
    said = re.sub(r"^warning: 1 of 2 actors had not started after .*\n", "", after_loading(done.stderr), flags=re.M)
    assert said == after_loading(local.stderr), "Ray's own messages are not for the user"
    assert "openvino f32 on cpu" in done.stdout


def test_every_slide_is_answered_once_although_nodes_are_lost(
    cluster: Any, opened: Callable[..., Any], slides: list[Slide], local_answers: dict[str, Any]
) -> None:
    executor = opened()
    workers = [node for node in cluster.list_all_nodes() if not node.head]
    store_bytes = ray.cluster_resources()["object_store_memory"]
    results: list[BatchResult] = []
    done = 0
    used_bytes = [0.0]
    for result in executor.execute(slides):
        results.append(result)
        done += result.files
        if len(workers) == 2 and done > SLIDES // 4:
            used_bytes.append(store_bytes - ray.available_resources().get("object_store_memory", 0.0))
        if workers and done > (3 - len(workers)) * SLIDES // 4:
            cluster.remove_node(workers.pop(), allow_graceful=False)
            add_node(cluster)

    assert workers == []
    assert answers(results) == local_answers
    assert executor.peak_memory_bytes > 20 << 20
    assert max(used_bytes) <= 64 << 20, "names and rows travel without the object store"


def test_an_actor_that_stands_still_is_replaced(
    opened: Callable[..., Any],
    slides: list[Slide],
    local_answers: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray_crew, "_REPLY_S", 8.0)
    executor = opened()
    results = executor.execute(slides)
    first = next(results)
    os.kill(actors()[0], signal.SIGSTOP)

    assert answers([first, *results]) == local_answers


class Deadly:
    """A value that ends the process that it is sent to."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (7,)


def test_a_slide_that_ends_its_process_has_a_row_that_says_so(
    opened: Callable[..., Any], slides: list[Slide], local_answers: dict[str, Any]
) -> None:
    few = slides[:10]
    deadly = replace(few[4], kept=(Deadly(),))

    found = answers(list(opened().execute([*few[:4], deadly, *few[5:]])))

    reason = found.pop(deadly.path)
    assert re.fullmatch(r"corrupt: each of \d+ processes that decoded it has ended", reason)
    assert found == {slide.path: local_answers[slide.path] for slide in few if slide != deadly}


def test_an_error_on_a_node_names_the_node(opened: Callable[..., Any]) -> None:
    with pytest.raises(MemoryShortageError, match=r"^on node \S+ \(.*\): the run may take 1M of memory, "):
        opened(memory=1 << 20)


def test_a_device_that_no_node_has_is_refused(opened: Callable[..., Any]) -> None:
    with pytest.raises(EngineError, match="'cuda' was asked for, and no node of the cluster has a GPU"):
        opened(device="cuda")


def test_slides_that_only_this_machine_sees_are_refused(
    cluster: Any, opened: Callable[..., Any], folder: Path, slides: list[Slide], tmp_path: Path
) -> None:
    hidden = ["unshare", "--map-root-user", "--mount", "sh", "-c", f'mount -t tmpfs none {folder} && exec "$@"', "-"]
    if subprocess.run([*hidden, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system allows no mount namespaces")
    start = [*hidden, sys.executable, "-m", "ray.scripts.scripts", "start", "--address", cluster.address, "--block"]
    executor = opened(places=[])
    node = subprocess.Popen([*start, "--num-cpus", "1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: ray.cluster_resources().get("CPU") == 3)
        with pytest.raises(SlidesError, match=f"^on node .*: the folder '{folder}' holds no '.*.jpg' there, as where "):
            opened()
        # Where only a list names them, a node may join, and is found out by what it misses.
        with pytest.raises(SlidesError, match=f"^node .* finds no file '{folder}/.*', which exists where the run "):
            sum(1 for _ in executor.execute(islice(cycle(slides[:200]), 10**7)))
    finally:
        node.terminate()
        node.wait()


def test_closing_early_ends_every_actor(opened: Callable[..., Any], slides: list[Slide]) -> None:
    executor = opened()
    with closing(executor.execute(cycle(slides))) as results:
        next(results)
        executor.stop()
        rest = sum(1 for _ in results)
    executor.close()

    assert rest < 1000
    until(lambda: not actors())


def actors() -> list[int]:
    """The processes of actors on this machine."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::SlideActor"):
                found.append(int(pid))
    return found


def until(is_so: Callable[[], bool]) -> None:
    """Return once it is so."""
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_stopped_run_goes_on_without_a_cluster(cluster: Any, folder: Path, tiny_engine: Path, tmp_path: Path) -> None:
    out, whole = tmp_path / "o.parquet", tmp_path / "whole.parquet"
    common = (folder, "--engine", tiny_engine, "--backend", "null", "--decoder", "pillow", "--out")
    run = subprocess.Popen(
        command(*common, out, "--cluster", cluster.address, "--batch-size", "1"), stderr=subprocess.PIPE, text=True
    )
    wait_for(partial(out) / "run.json", run)
    run.send_signal(signal.SIGTERM)
    errors = run.communicate(timeout=PATIENCE_S)[1]

    assert run.returncode == 143, errors
    assert errors.splitlines()[-1].startswith("batchcls: stopped by SIGTERM; ")
    until(lambda: not actors())
    assert [finished(*common, file).returncode for file in (out, whole)] == [0, 0]
    assert pq.read_table(out).equals(pq.read_table(whole))


SIGNALS_AND_A_SLOW_END = """
import os, signal, sys, time
from batchcls.inference.ray_cluster import RayCluster

signals = []
signal.signal(signal.SIGTERM, lambda number, frame: signals.append(number))
cluster = RayCluster(sys.argv[1])
os.kill(os.getpid(), signal.SIGTERM)
cluster.close()
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(3.5)
print(len(signals))
"""


def test_a_program_handles_its_signals_with_a_cluster_and_after_it(cluster: Any) -> None:
    program = subprocess.run(
        [sys.executable, "-c", SIGNALS_AND_A_SLOW_END, cluster.address], capture_output=True, text=True, check=False
    )

    assert (program.returncode, program.stdout, program.stderr) == (0, "2\n", "")


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "nosuchhost.invalid:6379"])
def test_a_head_that_is_not_there_is_one_line(address: str, folder: Path, tiny_engine: Path, tmp_path: Path) -> None:
    result = invoked(folder, "--out", tmp_path / "o.parquet", "--engine", tiny_engine, "--cluster", address)

    assert result.exit_code == 1
    line = result.stderr.splitlines()[-1]
    assert line.startswith(f"batchcls: a Ray cluster was asked for at '{address}', and no Ray head answers there; ")
    assert list(tmp_path.iterdir()) == []


def test_an_address_of_no_cluster_is_a_usage_error(folder: Path, tiny_engine: Path, tmp_path: Path) -> None:
    result = invoked(folder, "--out", tmp_path / "o.parquet", "--engine", tiny_engine, "--cluster", "http://a/b")

    assert result.exit_code == 2
    assert "'http://a/b' is not ray, HOST:PORT or ray://HOST:PORT" in result.stderr


def node(cpus: float, gpus: float = 0.0) -> ClusterNode:
    return ClusterNode("id", "node a", cpus, gpus)


@pytest.mark.parametrize(
    ("cpus", "gpus", "device", "options", "shares"),
    [
        (8, 0, "cpu", {}, [(8, 0, 8)]),
        (8, 0, "cpu", {"processes": 3}, [(2, 0, 2)] * 3),
        (1, 0, "cpu", {"processes": 2}, [(0.5, 0, 1)] * 2),
        (8, 0, "cpu", {"threads": 4}, [(4, 0, 4)]),
        (0, 0, "cpu", {}, []),
        (64, 4, "cuda", {}, [(16, 1, 16)] * 4),
        (64, 1, "cuda", {"processes": 3}, [(21, 0.3333, 21)] * 3),
        (2, 4, "cuda", {}, [(0.5, 1, 1)] * 4),
        (8, 0, "cuda", {}, []),
    ],
)
def test_a_node_is_shared_out(
    cpus: float, gpus: float, device: str, options: dict[str, Any], shares: list[tuple[float, float, int]]
) -> None:
    found = actor_shares(node(cpus, gpus), device, RunOptions(**options))

    assert [(share.cpus, share.gpus, share.threads) for share in found] == shares


@pytest.mark.parametrize(
    ("device", "gpus", "chosen"),
    [("auto", 1, "cuda"), ("auto", 0, "cpu"), ("cpu", 1, "cpu"), ("cuda", 1, "cuda"), ("all", 2, "cuda")],
)
def test_a_cluster_has_one_kind_of_device(device: str, gpus: float, chosen: str) -> None:
    assert cluster_device(device, [node(4), node(4, gpus)])[0] == chosen


def test_one_gpu_of_a_cluster_cannot_be_named() -> None:
    with pytest.raises(EngineError, match="use cuda for all GPUs"):
        cluster_device("cuda:1", [node(4, 2)])
