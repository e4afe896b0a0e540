"""Files that a disk does not hand out, now or ever, cost a run their own rows at most, and never its end."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from batchcls.images.decoders.read_ahead import ReadAhead, ReadOptions
from batchcls.images.sources import open_readers
from batchcls.records import Slide
from tests.commandline import PATIENCE_S, command, finished, rows_on_disk
from tests.conftest import ALL4, draw

SOUND = 60


@pytest.fixture(scope="module")
def failing_disk(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which files called hang* are never opened, and those called eio* fail."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        pytest.skip("no C compiler")
    library = tmp_path_factory.mktemp("disk") / "failing_disk.so"
    source = Path(__file__).with_name("failing_disk.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return {**os.environ, "LD_PRELOAD": str(library)}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(tmp_path_factory.mktemp("image") / "sound.jpg", 3, (40, 30))


@pytest.fixture
def slides(tmp_path: Path, image: Path) -> Path:
    """So many sound files."""
    return filled(tmp_path / "slides", image, [f"ok{number:03d}.jpg" for number in range(SOUND)])


def filled(folder: Path, image: Path, names: list[str]) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        os.link(image, folder / name)
    return folder


Start = Callable[[Path], "subprocess.Popen[str]"]


@pytest.fixture
def start(slides: Path, image: Path, tiny_engine: Path, failing_disk: dict[str, str]) -> Iterator[Start]:
    """Starts a run that is going to wait for one file for ever."""
    filled(slides, image, ["hang.jpg"])
    processes = []

    def popen(out: Path) -> "subprocess.Popen[str]":
        arguments = command(slides, "--out", out, "--engine", tiny_engine)
        pipe = subprocess.PIPE
        processes.append(
            subprocess.Popen(
                arguments,
                env=failing_disk,
                stdout=pipe,
                stderr=pipe,
                text=True,
                preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # of nohup's children it is ignored
            )
        )
        return processes[-1]

    yield popen
    for process in processes:
        process.kill()
        process.communicate()


def wait_for_line(process: "subprocess.Popen[str]", wanted: str) -> None:
    """Return once a run says what it waits for; before that a slow machine may wait for other files, and say so."""
    assert process.stderr is not None
    while not re.search(wanted, process.stderr.readline()):
        assert process.poll() is None


def wait_for_all_but_one(process: "subprocess.Popen[str]", out: Path) -> None:
    """Return once a run says what it waits for, with every other row on disk."""
    wait_for_line(process, r"\b60 of 61 files, .*, waiting for 'hang.jpg' for \d+ s$")
    until = time.monotonic() + PATIENCE_S
    while rows_on_disk(out) < SOUND:
        assert time.monotonic() < until
        time.sleep(0.1)


def test_a_run_that_waits_for_a_file_ends_when_it_is_asked_to(tmp_path: Path, start: Start) -> None:
    asked = {number: tmp_path / f"{number.name}.parquet" for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    hung = {number: start(out) for number, out in asked.items()}

    for number, process in hung.items():
        wait_for_all_but_one(process, asked[number])
        process.send_signal(number)

    for number, process in hung.items():
        said = process.communicate(timeout=PATIENCE_S)[1]
        assert process.returncode == 128 + number
        assert re.search(rf"stopped by {number.name}; 60 rows are in .*partial; .* run the same command again", said)
        assert rows_on_disk(asked[number]) == SOUND


def test_a_file_that_is_never_handed_out_has_a_row_in_the_end(
    slides: Path, image: Path, tiny_engine: Path, tmp_path: Path, failing_disk: dict[str, str]
) -> None:
    out = tmp_path / "o.parquet"
    filled(slides, image, ["hang1.jpg", "hang2.jpg", "eio.jpg", "slow.jpg"])

    done = finished(slides, "--out", out, "--engine", tiny_engine, "--read-timeout", "15", env=failing_disk)

    assert done.returncode == 0, done.stderr
    assert "3 files could not be read this time; the same command reads them again" in done.stdout
    rows = pq.read_table(out).to_pylist()
    assert len(rows) == SOUND + 4
    assert {row["path"]: row["error"] for row in rows if row["error"]} == {
        "eio.jpg": "unreadable: Input/output error",
        "hang1.jpg": "unreadable: no answer in 15 s",
        "hang2.jpg": "unreadable: no answer in 15 s",
    }

    again = finished(slides, "--out", out, "--engine", tiny_engine)  # of a disk that is well

    assert again.returncode == 0, again.stderr
    assert pq.read_table(out)["error"].null_count == len(rows)


def test_a_folder_that_is_never_listed_holds_up_no_row_and_no_end(
    slides: Path, image: Path, tiny_engine: Path, tmp_path: Path, failing_disk: dict[str, str]
) -> None:
    out = tmp_path / "o.parquet"
    filled(slides / "hang", image, ["never_seen.jpg"])
    arguments = command(slides, "--out", out, "--engine", tiny_engine, "--processes", "2")

    with subprocess.Popen(arguments, env=failing_disk, stderr=subprocess.PIPE, text=True) as process:
        wait_for_line(process, r"\b60 files, .*, waiting for '.*hang' for \d+ s$")
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=PATIENCE_S)[1]

    assert process.returncode == 143
    assert "stopped by SIGTERM; 60 rows are in " in said
    assert rows_on_disk(out) == SOUND


def test_a_disk_that_fails_for_most_files_stops_the_run(
    slides: Path, image: Path, tiny_engine: Path, tmp_path: Path, failing_disk: dict[str, str]
) -> None:
    out = tmp_path / "o.parquet"
    filled(slides, image, [f"eio{number:03d}.jpg" for number in range(400)])

    done = finished(slides, "--out", out, "--engine", tiny_engine, env=failing_disk)

    assert done.returncode == 1
    assert re.search(
        r"\d+ of the last 100 files could not be read, the last is '.*eio\d+.jpg': unreadable: Input/output error; "
        r"[\d,]+ rows are in .*o.parquet.partial; .* run the same command again",
        done.stderr,
    )
    assert not out.exists()
    assert rows_on_disk(out) > 0


def test_a_file_that_has_its_row_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    go_on = threading.Event()

    def slides() -> Iterator[Slide]:
        yield Slide(str(tmp_path), "empty.jpg")
        go_on.wait(PATIENCE_S)

    with closing(open_readers()) as readers, closing(ReadAhead(slides(), readers, ReadOptions(10**6))) as files:
        items = iter(files)
        while next(items) is None:
            pass
        waited_for = [files.waiting() for _ in range(3) if next(items) is None]
        go_on.set()

    assert waited_for == [None] * 3


SCRIPT = """if True:
    import ctypes, sys
    from batchcls.interrupts import Interrupt

    stop = Interrupt(sys.stderr, grace_s=float(sys.argv[1]))
    stop.answer, stop.last_message = "heard", "the epoch is safe"
    libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    libc.pthread_mutex_lock(mutex)
    with stop.listening():
        print("reached", flush=True)
        libc.pthread_mutex_lock(mutex)  # for ever, and no signal is heard of in Python
"""


@pytest.mark.parametrize(("grace_s", "signals"), [(0.5, 1), (PATIENCE_S, 2)])
def test_a_process_whose_main_thread_hangs_ends_in_time_or_with_the_second_signal(grace_s: float, signals: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(grace_s)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "reached\n"

    process.send_signal(signal.SIGTERM)
    assert process.stderr.readline() == "heard\n"
    if signals == 2:
        time.sleep(0.8)  # a second one at once would be taken for the first
        process.send_signal(signal.SIGTERM)

    said = process.communicate(timeout=PATIENCE_S / 2)[1]
    assert (process.returncode, said) == (143, "batchcls: stopped by SIGTERM; the epoch is safe\n")


FORKING = """if True:
    import os, sys, time
    from batchcls.interrupts import Interrupt

    with Interrupt(sys.stderr, 1.0).listening():
        child = os.fork()
        if not child:
            time.sleep(1000)  # as a loader of images may, which has every file of its parent open
    os.kill(child, 9)
    os.wait()
"""


def test_listening_ends_though_a_child_lives_on() -> None:
    done = subprocess.run([sys.executable, "-c", FORKING], capture_output=True, text=True, timeout=PATIENCE_S)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_update_keeps_the_row_of_a_file_whose_state_the_disk_does_not_tell(
    slides: Path, image: Path, tmp_path: Path, failing_disk: dict[str, str]
) -> None:
    out = tmp_path / "o.parquet"
    null = ("--engine", ALL4, "--backend", "null", "--update")
    filled(slides, image, ["lost1.jpg", "lost2.jpg"])
    finished(slides, "--out", out, *null)
    for name in ("lost1.jpg", "ok007.jpg", "ok059.jpg"):
        (slides / name).unlink()
        draw(slides / name, 7, (64, 48))

    first = finished(slides, "--out", out, *null, "--read-timeout", "5", env=failing_disk)
    widths = dict(zip(*pq.read_table(out).select(["path", "width"]).to_pydict().values(), strict=True))
    second = finished(slides, "--out", out, *null)

    assert first.returncode == 0, first.stderr
    assert "updated   0 new, 2 changed, 60 unchanged, 0 gone" in first.stdout
    assert "warning: 2 rows are kept although the disk did not say whether their files have changed" in first.stderr
    assert {path for path, width in widths.items() if width == 64} == {"ok007.jpg", "ok059.jpg"}
    assert "updated   0 new, 1 changed, 61 unchanged, 0 gone" in second.stdout


def test_an_update_that_waits_for_the_state_of_a_file_ends_when_it_is_asked_to(
    slides: Path, image: Path, tmp_path: Path, failing_disk: dict[str, str]
) -> None:
    out = tmp_path / "o.parquet"
    null = ("--engine", ALL4, "--backend", "null", "--update")
    filled(slides, image, ["other.jpg", "lost.jpg", "a.jpg"])
    finished(slides, "--out", out, *null)

    with subprocess.Popen(
        command(slides, "--out", out, *null), env=failing_disk, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_for_line(process, r"waiting for '.*lost.jpg' for \d+ s$")
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=PATIENCE_S)[1]

    assert process.returncode == 130
    assert "stopped by SIGINT" in said
