"""Several processes share a run: every slide is scored once, and whatever ends, nobody is left behind."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from itertools import cycle
from multiprocessing import active_children
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import onnx
import pyarrow.parquet as pq
import pytest
from onnx import helper, numpy_helper
from PIL import Image
from rich.console import Console

from batchcls import machine
from batchcls.building.build import BuildOptions, build_engine
from batchcls.engine.manifest import Manifest
from batchcls.errors import EngineError, MemoryShortageError
from batchcls.inference.device_configs import device_configs
from batchcls.inference.executor import DeviceConfig, Executor
from batchcls.inference.local_executor import LocalExecutor
from batchcls.inference.options import RunOptions
from batchcls.inference.process_executor import ProcessExecutor
from batchcls.records import METADATA_KEY, BatchResult, Slide
from batchcls.storage.memory import default_budget_bytes
from tests.commandline import PATIENCE_S, finished, invoked, partial, paused, stopping_command
from tests.conftest import ROOT, draw

SLIDES = 700


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Many files, few of them drawn; one in eight is broken in one of four ways."""
    folder = tmp_path_factory.mktemp("slides")
    sources = tmp_path_factory.mktemp("sources")
    images = [draw(sources / f"{seed}.jpg", seed) for seed in range(20)]
    whole = draw(sources / "plain.bmp").read_bytes()
    broken = [b"", b"no image", whole[:-900], images[0].read_bytes()[:700]]
    for number in range(SLIDES - 10):
        name = folder / f"{number:04}.bmp"
        if number % 8 == 3:
            name.write_bytes(broken[number // 8 % 4])
        else:
            os.link(images[number % 20], name)
    return folder


@pytest.fixture(scope="module")
def slides(folder: Path) -> list[Slide]:
    """Those files, and some that are not there."""
    return [Slide(str(folder), f"{number:04}.bmp") for number in range(SLIDES)]


@pytest.fixture
def share(tiny_engine: Path) -> DeviceConfig:
    """What opens soonest."""
    manifest, memory_bytes = Manifest.read(tiny_engine), default_budget_bytes()
    return DeviceConfig(tiny_engine, manifest, "null", "cpu", "pillow", 8, 1, 10**7, memory_bytes)


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    yield
    assert active_children() == []


def answers(scored: list[BatchResult]) -> dict[str, Any]:
    """What became of each slide, which is scored once."""
    found: list[tuple[str, Any]] = []
    for some in scored:
        predicted = zip(some.predictions.labels.tolist(), some.predictions.probabilities.tolist(), strict=True)
        found += [(slide.path, row) for slide, *row in zip(some.slides, some.sizes, predicted, strict=True)]
        found += [(failure.slide.path, [failure.text, failure.width, failure.height]) for failure in some.failures]
    assert max(Counter(path for path, _ in found).values(), default=1) == 1
    return dict(found)


def all_scored(scorer: Executor, slides: list[Slide]) -> list[BatchResult]:
    with closing(scorer), closing(scorer.execute(slides)) as scored:
        return list(scored)


def until(is_so: Callable[[], bool]) -> None:
    """Return once it is so."""
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.parametrize(("backend", "decoder"), [("null", "pillow"), ("openvino", "turbo")])
def test_every_slide_is_scored_once_and_as_on_one_device(
    share: DeviceConfig, slides: list[Slide], backend: Any, decoder: Any
) -> None:
    share = replace(share, backend=backend, decoder=decoder)
    alone = answers(all_scored(LocalExecutor(share), slides))

    workers = ProcessExecutor([share, share])
    together = answers(all_scored(workers, slides))

    assert sorted(together) == [slide.path for slide in slides]
    assert together == alone
    kinds = Counter(row[0].partition(":")[0] for row in together.values() if isinstance(row[0], str))
    assert kinds == {"empty": 22, "not an image": 22, "corrupt": 42, "missing": 10}


def test_a_slide_that_the_network_has_no_answer_for_keeps_its_row(
    tiny_onnx: Path, share: DeviceConfig, slides: list[Slide], tmp_path: Path, quiet: Console
) -> None:
    model = onnx.load(tiny_onnx)
    _, flat, scores = model.graph.node
    scores.output[0] = "finite"
    model.graph.node.extend(
        [
            helper.make_node("MatMul", [flat.output[0], "magenta"], ["how_much"]),
            helper.make_node("Sub", ["most", "how_much"], ["left"]),
            helper.make_node("Sqrt", ["left"], ["root"]),  # of pure magenta: not a number
            helper.make_node("Mul", ["root", "nothing"], ["zero"]),
            helper.make_node("Add", ["finite", "zero"], ["scores"]),
        ]
    )
    constants = {"magenta": [[1], [-1], [1]], "most": [5], "nothing": [0]}
    model.graph.initializer.extend(
        numpy_helper.from_array(np.array(value, np.float32), name) for name, value in constants.items()
    )
    onnx.save(model, tmp_path / "model.onnx")
    values = {"labels": ("a", "b", "c")}
    build_engine(tmp_path / "model.onnx", tmp_path / "engine", BuildOptions(values=values), quiet)
    Image.new("RGB", (64, 48), "magenta").save(tmp_path / "magenta.png")
    magenta = Slide(str(tmp_path), "magenta.png")

    engine = tmp_path / "engine"
    scorer = LocalExecutor(replace(share, engine=engine, manifest=Manifest.read(engine), backend="openvino"))
    found = answers(all_scored(scorer, [*slides[:3], magenta, *slides[4:7]]))

    assert found.pop("magenta.png") == ["no answer: the network's output is not a number", 64, 48]
    assert all(size == (64, 48) and np.isfinite(probabilities).all() for size, (_, probabilities) in found.values())
    assert sorted(found) == [slide.path for slide in (*slides[:3], *slides[4:7])]


def test_several_devices_are_told_of_as_one(share: DeviceConfig, slides: list[Slide]) -> None:
    with closing(LocalExecutor(share)) as alone:
        info = alone.info
    workers = ProcessExecutor([share, share, replace(share, device="cuda:1")])
    all_scored(workers, slides[:100])

    assert workers.info == replace(info, device="cpu,cuda:1"), "it tells how many processes a device has"


def test_the_memory_of_several_devices_is_that_of_all_of_them(share: DeviceConfig, slides: list[Slide]) -> None:
    one, three = (ProcessExecutor([share] * count) for count in (1, 3))
    for workers in (one, three):
        assert workers.peak_memory_bytes == 0
        all_scored(workers, slides[:100])

    assert 20 << 20 < one.peak_memory_bytes < 2000 << 20
    # A process that gets no slide takes less than one that reads and decodes.
    assert one.peak_memory_bytes + (40 << 20) < three.peak_memory_bytes < 4 * one.peak_memory_bytes


@pytest.mark.parametrize("count", [0, 1, 2])
def test_more_devices_than_slides_do_no_harm(share: DeviceConfig, slides: list[Slide], count: int) -> None:
    scored = all_scored(ProcessExecutor([share] * 3), slides[:count])

    assert sorted(answers(scored)) == ["0000.bmp", "0001.bmp"][:count]


def test_a_device_that_stalls_holds_up_no_more_than_it_has_taken(share: DeviceConfig, slides: list[Slide]) -> None:
    shares = [replace(share, device=f"cuda:{number}", max_pixels=1 + number) for number in range(2)]
    sound = [slide for number, slide in enumerate(slides[:-10]) if number % 8 != 3]
    early, late = sound * 4, sound
    stalled: set[int] = set()

    def stalling() -> Iterator[Slide]:
        """The second device stands still, then the first; each has asked for two more lots at most."""
        first, second = (child.pid for child in sorted(active_children(), key=lambda child: child.name))
        assert first is not None
        assert second is not None
        for stopped, some in ((second, early), (first, late)):
            os.kill(stopped, signal.SIGSTOP)
            stalled.add(stopped)
            yield from some
            os.kill(stopped, signal.SIGCONT)

    try:
        with closing(ProcessExecutor(shares)) as workers, closing(workers.execute(stalling())) as scored:
            failures = [failure for some in scored for failure in some.failures]
    finally:
        for pid in stalled:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    # All are too large, and what is said of each tells which device had it.
    by = Counter(failure.text.partition("the limit is ")[2][0] for failure in failures)
    assert by.total() == len(early) + len(late)
    few = 5 * 64  # a lot that it works on, two that it has asked for, and one for each device that is at hand
    assert abs(by["1"] - len(early)) <= few
    assert abs(by["2"] - len(late)) <= few


TOLD = r"the process for cuda:1 ended with -9; .* is kept: run the same command again, .* --batch-size"


class TestKilled:
    """A device's process that is killed, as the kernel does when memory runs out."""

    @staticmethod
    def shares(share: DeviceConfig) -> list[DeviceConfig]:
        return [share, replace(share, device="cuda:1")]

    @pytest.mark.parametrize("state", ["working", "stalled"])
    def test_in_the_middle_ends_the_run_with_how_to_go_on(
        self, share: DeviceConfig, slides: list[Slide], state: str
    ) -> None:
        processes = {}

        def dying() -> Iterator[Slide]:
            victim = processes["cuda:1"]
            if state == "stalled":  # so that it has no wish left when it dies
                os.kill(victim.pid, signal.SIGSTOP)
            yield from slides
            victim.kill()
            until(lambda: not alive(victim.pid))
            yield from cycle(slides)

        with closing(ProcessExecutor(self.shares(share))) as workers:
            processes.update({child.name: child for child in active_children()})
            with pytest.raises(EngineError, match=TOLD), closing(workers.execute(dying())) as scored:
                list(scored)

        assert {name: process.exitcode for name, process in processes.items()} == {"cpu": 0, "cuda:1": -9}

    def test_while_it_opens_is_told_alike(self, share: DeviceConfig) -> None:
        def kill() -> None:
            until(lambda: len(active_children()) == 2)
            for child in active_children():
                if child.name == "cuda:1":
                    child.kill()

        killer = Thread(target=kill)
        killer.start()
        with pytest.raises(EngineError, match=TOLD):
            ProcessExecutor(self.shares(share))
        killer.join()


def test_a_listing_that_hangs_holds_up_no_result_and_no_end(share: DeviceConfig, slides: list[Slide]) -> None:
    go_on = Event()

    def hanging() -> Iterator[Slide]:
        yield from slides[:150]
        go_on.wait(PATIENCE_S)

    with closing(ProcessExecutor([share, share])) as workers:
        processes = active_children()
        scored = workers.execute(hanging())
        done = 0
        while done < 150:  # which is no whole number of lots
            done += next(scored).files
        scored.close()
        workers.close()
        assert not go_on.is_set()
        go_on.set()

    assert [process.exitcode for process in processes] == [0, 0], "it was killed"


def test_devices_have_work_while_nobody_takes_their_results(share: DeviceConfig, folder: Path) -> None:
    given = 0

    def counted() -> Iterator[Slide]:
        nonlocal given
        while True:
            yield Slide(str(folder), f"{8 * (given % 80):04}.bmp")
            given += 1

    with closing(ProcessExecutor([share, share])) as workers, closing(workers.execute(counted())) as scored:
        next(scored)
        before = given
        # As many as results wait for their turn, where each is of 8 slides.
        until(lambda: given >= before + 2 * 8 * 8)


@pytest.mark.skipif(bool(machine.gpus()), reason="this machine has a GPU")
def test_images_that_stay_on_a_gpu_take_no_memory_of_the_run(
    share: DeviceConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("nvidia.dali", reason="DALI is not installed")
    # What this process holds may change at any time, by what other tests have left.
    monkeypatch.setattr("batchcls.inference.local_executor.resident_bytes", lambda: 1 << 30)
    # Of images on their way to the network there may be 100 MiB here, and for files 64 MiB are needed.
    config = replace(share, device="cuda:0", batch_size=4096, memory_bytes=(1 << 30) + (130 << 20))
    with pytest.raises(MemoryShortageError):
        LocalExecutor(replace(config, decoder="turbo"))

    with pytest.raises(RuntimeError, match="CUDA is not available"):  # which DALI finds next
        LocalExecutor(replace(config, decoder="dali"))


def test_a_process_keeps_to_its_cores_and_its_parent_to_its_own(share: DeviceConfig) -> None:
    before = os.sched_getaffinity(0)
    core = frozenset({max(before)})

    with closing(ProcessExecutor([replace(share, cores=core), share])):
        held = {child.name: cores_of_threads(child.pid) for child in active_children()}

    assert held == {"cpu (1 of 2)": {core}, "cpu (2 of 2)": {frozenset(before)}}
    assert os.sched_getaffinity(0) == before


def cores_of_threads(pid: int | None) -> set[frozenset[int]]:
    """The sets of cores that the threads of a process keep to."""
    found = set()
    for thread in os.listdir(f"/proc/{pid}/task"):
        with suppress(ProcessLookupError):  # the thread has just ended
            found.add(frozenset(os.sched_getaffinity(int(thread))))
    return found


def test_too_little_memory_for_all_processes_is_told_with_what_is_enough(share: DeviceConfig) -> None:
    with pytest.raises(MemoryShortageError) as refusal:
        ProcessExecutor([replace(share, memory_bytes=100 << 20)] * 2)

    enough = re.fullmatch(
        r"the process for cpu \(1 of 2\): the run may take 100M of memory, and 0M are left of it for each of its 2 "
        r"processes with the engine loaded; it needs --memory (\d+)M at least, on a machine that has so much, fewer "
        "processes, or a smaller --batch-size",
        str(refusal.value),
    )
    assert enough, refusal.value
    ProcessExecutor([replace(share, memory_bytes=(int(enough[1]) + 16) << 20)] * 2).close()


def test_closing_early_ends_every_process_soon(share: DeviceConfig, slides: list[Slide]) -> None:
    with closing(ProcessExecutor([share, share])) as workers:
        processes = active_children()
        scored = workers.execute(cycle(slides))
        next(scored)
        scored.close()

    assert [process.exitcode for process in processes] == [0, 0], "it was killed"
    workers.close()


def test_closing_ends_processes_that_have_much_left_to_say(share: DeviceConfig) -> None:
    """So much that they wait until somebody listens."""
    lengthy = [Slide("/nowhere", f"{'a/' * 2000}{number}.jpg") for number in range(64)]
    with closing(ProcessExecutor([replace(share, batch_size=1)] * 2)) as workers:
        processes = active_children()
        scored = workers.execute(cycle(lengthy))
        next(scored)
        time.sleep(0.3)
        scored.close()

    assert [process.exitcode for process in processes] == [0, 0], "it was killed"


def test_closing_before_anything_is_scored_ends_every_process_soon(share: DeviceConfig) -> None:
    workers = ProcessExecutor([share, share])
    processes = active_children()
    workers.close()

    assert [process.exitcode for process in processes] == [0, 0], "it was killed"


@pytest.mark.parametrize(
    "changes",
    [{"backend": "openvino", "device": "cuda:1"}, {"engine": Path("nowhere")}],
    ids=["device", "folder"],
)
def test_an_engine_that_cannot_be_opened_says_so_as_on_one_device(share: DeviceConfig, changes: dict[str, Any]) -> None:
    wrong = replace(share, **changes)
    with pytest.raises(EngineError) as alone:
        LocalExecutor(wrong)

    with pytest.raises(EngineError) as together:
        ProcessExecutor([share, wrong])

    assert type(together.value) is type(alone.value)
    shared = wrong.device == share.device
    assert str(together.value) == ("the process for cpu (2 of 2): " if shared else "") + str(alone.value)


def test_a_bug_while_a_device_opens_keeps_its_traceback(share: DeviceConfig) -> None:
    with pytest.raises(
        RuntimeError, match=r"the process for cpu \(2 of 2\):\nTraceback (?s:.*)No module named .*nonesuch"
    ):
        ProcessExecutor([share, replace(share, decoder="nonesuch")])  # type: ignore[arg-type]


def test_a_bug_while_a_device_scores_keeps_its_traceback(share: DeviceConfig, slides: list[Slide]) -> None:
    no_folder: Any = 5
    no_slide = Slide(no_folder, "0000.bmp")

    with (
        closing(ProcessExecutor([share, share])) as workers,
        pytest.raises(RuntimeError, match=r"in the process for cpu \([12] of 2\):\nTraceback (?s:.*)TypeError: "),
        closing(workers.execute([*slides, no_slide, *slides])) as scored,
    ):
        list(scored)


def test_devices_that_would_compute_in_different_ways_are_refused(share: DeviceConfig) -> None:
    with pytest.raises(EngineError, match=r"^cpu would compute with null none, .* openvino (bf16|f32); .*--backend$"):
        ProcessExecutor([share, replace(share, backend="openvino")])


@pytest.mark.parametrize("kind", [LookupError, OSError, EOFError])
def test_what_goes_wrong_in_finding_slides_comes_through(
    share: DeviceConfig, slides: list[Slide], kind: type[Exception]
) -> None:
    def failing() -> Iterator[Slide]:
        yield from slides
        raise kind("the disk is gone")

    with (
        closing(ProcessExecutor([share, share])) as workers,
        pytest.raises(kind, match="the disk is gone"),
        closing(workers.execute(failing())) as scored,
    ):
        list(scored)


SCRIPT = """if True:
    import os, signal, sys
    from contextlib import closing
    from itertools import cycle
    from pathlib import Path
    from threading import Event
    from batchcls.records import Slide
    from batchcls.engine.manifest import Manifest
    from batchcls.inference.executor import DeviceConfig
    from batchcls.inference.process_executor import ProcessExecutor

    folder, engine, moment = sys.argv[1:]
    share = DeviceConfig(
        Path(engine), Manifest.read(Path(engine)), "null", "cpu", "pillow",
        batch_size=8, threads=1, max_pixels=10**7, memory_bytes=2**32
    )
    slides = [Slide(folder, name) for name in sorted(os.listdir(folder))]
    asked_to_stop = Event()
    signal.signal(signal.SIGINT, lambda number, frame: asked_to_stop.set())

    def coming():
        yield from slides[:300]
        if moment == "idle":
            print("reached", flush=True)
            asked_to_stop.wait()
        if moment == "busy":
            yield from cycle(slides)
        yield from slides[300:]

    if moment == "opening":
        print("reached", flush=True)
    with closing(ProcessExecutor([share, share])) as workers, closing(workers.execute(coming())) as scored:
        done = 0
        for some in scored:
            if not done and moment == "busy":
                print("reached", flush=True)
            done += some.files
        print(asked_to_stop.is_set(), done)
"""


@pytest.fixture
def started(folder: Path, tiny_engine: Path) -> Iterator[Callable[[str], "subprocess.Popen[str]"]]:
    """Starts two workers in a process group of their own, which is at ``moment`` when this returns."""
    processes = []

    def start(moment: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, folder, tiny_engine, moment],
            cwd=ROOT,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "reached\n"
        until(lambda: len(children(process.pid)) >= 3)  # two workers, and Python's own resource tracker
        return process

    yield start
    for process in processes:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def children(pid: int) -> list[int]:
    """Processes that one has started and that still run."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and alive(int(name), parent=pid)]


def alive(pid: int, parent: int | None = None) -> bool:
    """Whether a process runs, and is the child of that parent."""
    try:
        # Another program of this machine may be called what is no UTF-8.
        state, its_parent = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX" and parent in (None, int(its_parent))


@pytest.mark.parametrize("moment", ["opening", "busy", "idle"])
def test_a_killed_run_leaves_no_process_behind(started: Callable[[str], "subprocess.Popen[str]"], moment: str) -> None:
    process = started(moment)
    left = children(process.pid)

    process.kill()
    process.wait()

    assert len(left) == 3
    until(lambda: not any(map(alive, left)))


@pytest.mark.parametrize("moment", ["opening", "idle"])
def test_of_an_interrupt_from_the_terminal_only_the_first_process_takes_notice(
    started: Callable[[str], "subprocess.Popen[str]"], moment: str
) -> None:
    process = started(moment)

    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=PATIENCE_S)

    assert errors == ""
    assert output == f"True {SLIDES - 10}\n"
    assert process.returncode == 0


CLASSIFY = """if True:
    import os, signal, sys
    from contextlib import closing
    from pathlib import Path
    from batchcls.images.sources.folder import FolderSource
    from batchcls.predictions.writer import open_writer
    from batchcls.engine.manifest import Manifest
    from batchcls.inference.executor import DeviceConfig
    from batchcls.inference.process_executor import ProcessExecutor

    folder, engine, out, until = sys.argv[1:]
    share = DeviceConfig(
        Path(engine), Manifest.read(Path(engine)), "null", "cpu", "pillow",
        batch_size=8, threads=1, max_pixels=10**7, memory_bytes=2**32
    )
    with closing(FolderSource([Path(folder)])) as listing, closing(ProcessExecutor([share, share])) as workers:
        labels = workers.info.labels
        with closing(open_writer(Path(out), roots=listing.roots, labels=labels, identity={})) as output:
            print(output.resumed_rows)
            done = 0
            with closing(workers.execute(output.missing(listing))) as scored:
                for some in scored:
                    output.write(some)
                    done += some.files
                    if done >= int(until):
                        output.flush()
                        os.kill(os.getpid(), signal.SIGKILL)
            output.finish({})
"""


def test_a_run_over_two_devices_that_is_killed_ends_in_the_file_of_an_undisturbed_one(
    folder: Path, tiny_engine: Path, tmp_path: Path
) -> None:
    out, whole = tmp_path / "o.parquet", tmp_path / "whole.parquet"
    alone = finished(folder, "--out", whole, "--engine", tiny_engine, "--backend", "null", "--decoder", "pillow")

    def shared(until_rows: int) -> "subprocess.CompletedProcess[str]":
        arguments = [folder, tiny_engine, out, str(until_rows)]
        return subprocess.run(
            [sys.executable, "-u", "-c", CLASSIFY, *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )

    first, second = shared(100), shared(200)
    assert not out.exists()
    last = shared(10**9)

    assert [process.returncode for process in (alone, first, second, last)] == [0, -9, -9, 0], last.stderr
    resumed = [int(process.stdout) for process in (first, second, last)]
    assert resumed[0] == 0
    assert 100 <= resumed[1] < resumed[1] + 200 <= resumed[2] < SLIDES - 10
    assert pq.read_table(out).equals(pq.read_table(whole))
    assert not partial(out).exists()


@pytest.fixture(scope="module")
def alone(folder: Path, tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The predictions file of one process."""
    out = tmp_path_factory.mktemp("alone") / "alone.parquet"
    assert finished(folder, "--out", out, "--engine", tiny_engine, "--processes", "1").returncode == 0
    return out


class TestProcesses:
    """`batchcls run --processes`: how many processes share a device is nothing that rows depend on."""

    def test_the_file_is_that_of_one_process(
        self, alone: Path, folder: Path, tiny_engine: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "o.parquet"
        done = finished(folder, "--out", out, "--engine", tiny_engine, "--processes", "2")

        assert done.returncode == 0, done.stderr
        assert pq.read_table(out).equals(pq.read_table(alone))
        one, two = (json.loads(pq.read_metadata(path).metadata[METADATA_KEY]) for path in (alone, out))
        assert [record["arguments"].pop("processes") for record in (one, two)] == [1, 2]
        for record in (one, two):
            for measured in ("throughput", "started", "ended"):
                del record[measured]
        assert two == one

    def test_a_run_goes_on_with_another_number_of_them(
        self, alone: Path, folder: Path, tiny_engine: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "o.parquet"
        run = subprocess.Popen(
            stopping_command(folder, "--out", out, "--engine", tiny_engine, "--processes", "2"),
            stderr=subprocess.DEVNULL,
        )
        with paused(run):
            run.send_signal(signal.SIGTERM)
        assert run.wait(PATIENCE_S) == 143

        done = finished(folder, "--out", out, "--engine", tiny_engine, "--processes", "3")

        assert done.returncode == 0, done.stderr
        assert pq.read_table(out).equals(pq.read_table(alone))

    def test_a_killed_one_is_named(self, folder: Path, tiny_engine: Path, tmp_path: Path) -> None:
        out = tmp_path / "o.parquet"
        run = subprocess.Popen(
            stopping_command(folder, "--out", out, "--engine", tiny_engine, "--processes", "2"),
            stderr=subprocess.PIPE,
            text=True,
        )
        with paused(run):
            workers = [pid for pid in children(run.pid) if "multiprocessing.spawn" in command_line(pid)]
            os.kill(max(workers), signal.SIGKILL)
        errors = run.communicate(timeout=PATIENCE_S)[1]

        assert len(workers) == 2
        assert run.returncode == 1
        assert re.search(r"the process for cpu \([12] of 2\) ended with -9; .* or fewer --processes$", errors.strip())

    @pytest.mark.parametrize(("threads", "each"), [(7, 2), (3, 1), (None, max(1, machine.cores() // 3))])
    def test_threads_are_shared_out_among_them(self, tiny_engine: Path, threads: int | None, each: int) -> None:
        configs, _ = device_configs(tiny_engine, RunOptions(device="cpu", processes=3, threads=threads))

        assert [(config.device, config.threads, config.cores) for config in configs] == [("cpu", each, None)] * 3

    def test_more_of_them_than_threads_are_refused(self, folder: Path, tiny_engine: Path, tmp_path: Path) -> None:
        arguments = ("--processes", "3", "--threads", "2")
        result = invoked(folder, "--out", tmp_path / "o.parquet", "--engine", tiny_engine, *arguments)

        assert result.exit_code == 1
        assert result.stderr == (
            "batchcls: --processes 3 was asked for, and --threads 2 for all of them together: 3 processes need a "
            "thread each; run with --threads 3, or fewer --processes\n"
        )
        assert list(tmp_path.iterdir()) == []


def command_line(pid: int) -> str:
    """The arguments that a process was started with."""
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
