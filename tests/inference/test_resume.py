"""A run that is killed, stopped or doubled ends in the file that an undisturbed one writes."""

import fcntl
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pyarrow.parquet as pq
import pytest

from tests.commandline import (
    PATIENCE_S,
    command,
    finished,
    invoked,
    links,
    partial,
    paused,
    rows_on_disk,
    stopping_command,
    wait_until_stopped,
)
from tests.conftest import draw

FILES = 22_000

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a run that is not waited for; none outlives its test."""
    processes = []

    def popen(*arguments: str | Path, stops: Literal["begun", "part"] | None = None) -> "subprocess.Popen[str]":
        words = stopping_command(*arguments, at=stops) if stops else command(*arguments)
        processes.append(subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return processes[-1]

    yield popen
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("images")
    return [draw(folder / f"{seed}.bmp", seed, (16, 12)) for seed in range(20)]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory, images: list[Path]) -> Iterator[Path]:
    """So many files that a part closes well before the last is done; most are empty, so that it does not take long."""
    folder = tmp_path_factory.mktemp("many")
    (folder / "empty.bmp").touch()
    yield links(folder / "slides", FILES, [images[0], *[folder / "empty.bmp"] * 60, *images[1:]])
    shutil.rmtree(folder)


def test_a_run_killed_again_and_again_ends_in_the_same_file(
    many: Path, tiny_engine: Path, tmp_path: Path, start: Start
) -> None:
    whole, out = tmp_path / "whole.parquet", tmp_path / "o.parquet"
    finished(many, "--out", whole, "--engine", tiny_engine)

    for reached in ("begun", "part"):
        process = start(many, "--out", out, "--engine", tiny_engine, stops=reached)
        wait_until_stopped(process)
        process.kill()
        assert process.wait(PATIENCE_S) == -signal.SIGKILL
    kept = rows_on_disk(out)  # a part closes by its rows, or on a busy machine by its age
    resumed = start(many, "--out", out, "--engine", tiny_engine)
    assert resumed.stderr is not None
    assert resumed.stderr.readline().startswith("loading engine tiny")
    done = re.search(r"([\d,]+) rows are done", resumed.stderr.readline())
    resumed.kill()
    resumed.wait(PATIENCE_S)
    assert not out.exists()
    last = finished(many, "--out", out, "--engine", tiny_engine)

    assert done is not None
    assert int(done[1].replace(",", "")) == kept
    assert 0 < kept < FILES
    assert re.search(rf"^resumed +{done[1]} of the rows were done before$", last.stdout, re.MULTILINE)
    assert pq.read_table(out).equals(pq.read_table(whole))
    assert not partial(out).exists()


def wait_for_lock(path: Path) -> None:
    """Return once a run holds the lock of an output that was begun before."""
    with path.open("rb") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            fcntl.flock(lock, fcntl.LOCK_UN)
            time.sleep(0.05)


def test_a_run_that_is_asked_to_stop_says_how_to_go_on(
    images: list[Path], tiny_engine: Path, tmp_path: Path, start: Start
) -> None:
    slides, whole, out = links(tmp_path / "slides", 20_000, images), tmp_path / "whole.parquet", tmp_path / "o.parquet"
    finished(slides, "--out", whole, "--engine", tiny_engine)

    first = start(slides, "--out", out, "--engine", tiny_engine, stops="begun")
    with paused(first):
        first.send_signal(signal.SIGINT)
    said = first.communicate(timeout=PATIENCE_S)[1]
    # A machine so busy that the run has to be ended before its first batch does not tell the number of rows.
    counted = r"(?:([\d,]+) rows are in .*o\.parquet\.partial; to go on, )?"
    done = re.search(rf"stopped by SIGINT; {counted}run the same command again", said)
    assert done is not None
    second = start(slides, "--out", out, "--engine", tiny_engine)
    assert second.stderr is not None
    assert second.stderr.readline().startswith("loading engine tiny")
    if done[1] not in (None, "0"):  # else the signal came before the first batch was done
        assert f"{done[1]} rows are done" in second.stderr.readline()
    wait_for_lock(partial(out) / "lock")
    second.send_signal(signal.SIGTERM)
    said_again = second.communicate(timeout=PATIENCE_S)[1]
    last = finished(slides, "--out", out, "--engine", tiny_engine)

    assert (first.returncode, second.returncode, last.returncode) == (130, 143, 0)
    assert said.index("stopping after this batch, nothing is lost\n") < done.start()
    assert re.search("stopped by SIGTERM; .*run the same command again", said_again)
    assert pq.read_table(out).equals(pq.read_table(whole))


def test_a_file_that_vanishes_keeps_its_row(
    tmp_path: Path, tiny_engine: Path, images: list[Path], start: Start
) -> None:
    slides, out = links(tmp_path / "slides", 200, images), tmp_path / "o.parquet"
    process = start(slides, "--out", out, "--engine", tiny_engine, stops="begun")

    with paused(process):
        for path in slides.glob("0001?5.bmp"):
            path.unlink()

    assert process.wait(PATIENCE_S) == 0
    errors = dict(zip(*pq.read_table(out).select(["path", "error"]).to_pydict().values(), strict=True))
    assert len(errors) == 200
    vanished = {path for path, error in errors.items() if error and error.startswith("missing: ")}
    assert vanished == {f"0001{digit}5.bmp" for digit in range(10)}


def test_two_runs_on_one_output_are_refused(
    tmp_path: Path, tiny_engine: Path, images: list[Path], start: Start
) -> None:
    slides, out = links(tmp_path / "slides", 200, images), tmp_path / "o.parquet"
    first = start(slides, "--out", out, "--engine", tiny_engine, stops="begun")

    with paused(first):
        second = invoked(slides, "--out", out, "--engine", tiny_engine)

    assert second.exit_code == 1
    assert "another run is writing" in second.stderr
    assert first.wait(PATIENCE_S) == 0
    assert len(pq.read_table(out)) == 200
