"""What a run may take: what cannot be had is no fault of a file, and a run with more goes on."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from batchcls.images.formats.inspection import examine
from batchcls.storage import memory
from tests.commandline import PATIENCE_S, finished, invoked, partial
from tests.conftest import ALL4, ROOT, draw

SIDE = 5000
LARGE: dict[str, tuple[str, dict[str, Any]]] = {
    "a.jpg": ("RGB", {}),
    "b.jpg": ("RGB", {"progressive": True, "subsampling": 0}),
    "c.png": ("RGB", {"compress_level": 1}),
    "d.tif": ("RGB", {"compression": "tiff_lzw", "tiffinfo": {278: SIDE}}),
    "e.webp": ("RGB", {"method": 0}),
    "f.bmp": ("RGB", {}),
}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images of 25 megapixels in as many formats, and a small one."""
    folder = tmp_path_factory.mktemp("large")
    for name, (mode, save) in LARGE.items():
        Image.new(mode, (SIDE, SIDE), "pink").save(folder / name, **save)
    draw(folder / "small.png")
    return folder


def run(folder: Path, out: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    return finished(folder, "--out", out, "--engine", ALL4, "--backend", "null", "--batch-size", "4", *options)


@pytest.mark.parametrize("decoder", ["turbo", "pillow"])
def test_what_does_not_fit_has_no_row_and_a_run_with_more_memory_goes_on(
    large: Path, tmp_path: Path, decoder: str
) -> None:
    out, whole = tmp_path / "o.parquet", tmp_path / "whole.parquet"
    options = ("--decoder", decoder)

    short = run(large, out, "--memory", "350M", *options)

    assert short.returncode == 1
    assert "Traceback" not in short.stderr
    assert "need more memory than there is" in short.stderr
    assert "--memory" in short.stderr
    assert partial(out).is_dir()
    assert run(large, out, *options).returncode == run(large, whole, *options).returncode == 0
    columns = ["path", "label", "probabilities", "error"]
    assert pq.read_table(out, columns=columns).equals(pq.read_table(whole, columns=columns))
    assert pq.read_table(out)["error"].null_count == 7


@pytest.mark.parametrize("limit_mb", [1000, 1400])
def test_a_limit_of_address_space_never_makes_a_file_corrupt(large: Path, tmp_path: Path, limit_mb: int) -> None:
    out = tmp_path / "o.parquet"

    arguments = [large, "--out", out, "--engine", ALL4, "--backend", "null", "--device", "cpu"]
    limited = f"ulimit -v {limit_mb << 10}; exec {sys.executable} -m batchcls run " + " ".join(map(str, arguments))
    done = subprocess.run(
        ["bash", "-c", limited], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )

    assert done.returncode in (0, 1)
    assert "Traceback" not in done.stderr
    assert "corrupt" not in done.stdout + done.stderr
    if done.returncode:
        assert "more memory" in done.stderr
        assert run(large, out).returncode == 0
    assert pq.read_table(out)["error"].null_count == 7


THREADS = """if True:
    import os, resource
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
    from batchcls.storage import memory
    memory.limit_memory_use()
    import numpy
    print(len(os.listdir("/proc/self/task")))
"""


def test_where_address_space_is_limited_numpy_takes_none_for_each_core() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", THREADS], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "1\n"


def test_a_budget_that_is_too_small_to_begin_with_says_how_much_it_takes(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    result = run(tmp_path, tmp_path / "o.parquet", "--memory", "50M")
    assert (result.returncode, result.stdout) == (1, "")
    assert "the run may take 50M of memory" in result.stderr


@pytest.mark.parametrize("size", ["0G", "-1G", "4", "lots", "4X", "1e3G", ""])
def test_a_size_that_is_none_is_a_usage_error(tmp_path: Path, size: str) -> None:
    draw(tmp_path / "a.png")
    result = invoked(tmp_path, "--out", tmp_path / "o.parquet", "--memory", size)
    assert result.exit_code == 2
    assert "--memory" in result.output


def test_a_pool_is_lent_in_turn_and_never_beyond_its_size() -> None:
    pool = memory.MemoryPool(100)
    taken, most, order = 0, 0, []
    lock = threading.Lock()

    def borrow(number: int) -> None:
        nonlocal taken, most
        size = 10 + number % 7 * 15
        with pool.lease(size):
            with lock:
                taken += size
                most = max(most, taken)
            time.sleep(0.001)
            with lock:
                taken -= size

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(borrow, range(200)))
    assert most <= 100
    with pool.lease_all() as granted, granted.lease(60), granted.lease(60):
        later = threading.Thread(target=lambda: (pool.lease(1).__enter__(), order.append("later")))
        later.start()
        later.join(0.05)
        order.append("alone")
    later.join(PATIENCE_S)
    assert order == ["alone", "later"]


GROUPS = """if True:
    import os, sys
    from pathlib import Path
    group = Path(sys.argv[1])
    (group / "cgroup.procs").write_text(str(os.getpid()))
    from batchcls.storage import memory
    print(memory.available_bytes(), memory.capacity_bytes())
"""


def test_a_control_group_limits_what_is_available() -> None:
    (own, _, files), *_ = [*memory._memory_cgroups(), (Path(), Path(), ("", "", ""))]
    group = own / f"batchcls-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / files[0]).write_text(str(300 << 20))
    except OSError:
        if group.is_dir():
            group.rmdir()
        pytest.skip("no control group can be made here")
    try:
        done = subprocess.run(
            [sys.executable, "-c", GROUPS, group], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S
        )
        assert done.stderr == ""
        available, capacity = map(int, done.stdout.split())
        assert 100 << 20 < available < capacity == 300 << 20
    finally:
        group.rmdir()


LIMITED = """if True:
    import resource
    from pathlib import Path
    from batchcls.storage.table_memory import check_memory
    check_memory(Path("t.csv"), 1 << 30)
    resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30))
    check_memory(Path("t.csv"), 1 << 30)
"""


def test_a_table_is_held_against_the_limits_of_the_process() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert "more than half of the 1,073,741,824 that there are for this process" in done.stderr


COSTS = """if True:
    import sys
    from pathlib import Path
    from batchcls import machine
    from batchcls.storage import memory
    memory.limit_memory_use()
    from batchcls.images.formats.inspection import decode, examine

    small, large = (Path(path).read_bytes() for path in sys.argv[1:])
    for _ in range(2):
        decode(small, examine("small", small, 10**9))
    header = examine("large", large, 10**9)
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak
    before = memory.resident_bytes()
    decode(large, header)
    print(header.decode_bytes, machine.peak_memory_bytes() - before)
"""


@pytest.mark.parametrize("name", LARGE)
def test_what_decoding_costs_is_told_from_the_header(large: Path, tmp_path: Path, name: str) -> None:
    mode, save = LARGE[name]
    small = draw(tmp_path / name, mode=mode, **{key: value for key, value in save.items() if key != "tiffinfo"})
    done = subprocess.run(
        [sys.executable, "-c", COSTS, small, large / name],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    cost, measured = map(int, done.stdout.split())
    assert measured <= cost <= 3 * measured
    assert cost == examine(name, (large / name).read_bytes(), 10**9).decode_bytes
