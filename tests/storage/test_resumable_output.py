"""Wherever a process was killed, the next one goes on with what it may, and with nothing else."""

import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from batchcls.errors import OutputError
from tests.commandline import PATIENCE_S
from tests.conftest import ROOT
from tests.predictions.test_writer import IDENTITY, opened, slides, write, written

ANOTHER = {**IDENTITY, "onnx_sha256": "of another engine"}
KILLED_AT_EACH_STEP = """
import os, signal, sys
from contextlib import closing
from pathlib import Path
from tests.predictions.test_writer import opened, slides, write

STEPS = {"open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "shutil.rmtree"}
left = 0

def count(event, arguments):
    global left
    if left and event in STEPS:
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(count)
folder, step, last = Path(sys.argv[1]), 0, 0
while last == 0 or os.WIFSIGNALED(last):
    step += 1
    child = os.fork()
    if not child:
        out = folder / str(step) / "o.parquet"
        out.parent.mkdir()
        left = step
        with closing(opened(out)) as output:
            for start in (0, 8):
                write(output, slides(16)[start : start + 8])
                output.flush()
            output.finish({})
        os._exit(77)
    last = os.waitpid(child, 0)[1]
sys.exit(os.waitstatus_to_exitcode(last) != 77)
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outputs, each in a folder of its own, whose process was killed at its first, second, ... and last disk step."""
    folder = tmp_path_factory.mktemp("killed")
    subprocess.run([sys.executable, "-c", KILLED_AT_EACH_STEP, folder], check=True, timeout=PATIENCE_S, cwd=ROOT)
    return folder


def outputs(killed: Path, scratch: Path) -> dict[int, Path]:
    """A copy of each, by the step at which it was killed."""
    copies = shutil.copytree(killed, scratch / "killed")
    return {int(folder.name): folder / "o.parquet" for folder in copies.iterdir()}


def test_wherever_a_run_was_killed_its_file_ends_the_same(killed: Path, tmp_path: Path) -> None:
    written(tmp_path / "expected.parquet", slides(16))

    differing = []
    for step, path in outputs(killed, tmp_path).items():
        if not path.exists():
            with closing(opened(path)) as output:
                write(output, list(output.missing(slides(16))))
                output.finish({})
            assert list(path.parent.iterdir()) == [path]
        if path.read_bytes() != (tmp_path / "expected.parquet").read_bytes():
            differing.append(step)

    assert differing == []


@pytest.mark.parametrize("identity", [IDENTITY, ANOTHER])
def test_wherever_a_run_was_killed_a_finished_file_leaves_no_rows_to_the_next(
    killed: Path, tmp_path: Path, identity: dict[str, str]
) -> None:
    taken_over = {}
    for step, path in outputs(killed, tmp_path).items():
        if path.exists():
            with closing(opened(path, identity=identity, overwrite=True)) as output:
                taken_over[step] = output.resumed_rows

    assert taken_over
    assert {step: rows for step, rows in taken_over.items() if rows} == {}


def test_wherever_a_run_was_killed_another_engine_adopts_none_of_its_rows(killed: Path, tmp_path: Path) -> None:
    refused = 0
    for path in outputs(killed, tmp_path).values():
        begun = (path.with_name("o.parquet.partial") / "run.json").exists()
        if begun and not path.exists():
            with pytest.raises(OutputError, match=r"of another engine.*rm -r"):
                opened(path, identity=ANOTHER)
            refused += 1
    assert refused


def test_a_second_writer_is_refused_while_the_first_is_there(tmp_path: Path) -> None:
    path = tmp_path / "o.parquet"
    with closing(opened(path)) as first:
        write(first, slides(3))
        with pytest.raises(OutputError, match="another run is writing"):
            opened(path)
        first.flush()

    with closing(opened(path)) as second:
        assert second.resumed_rows == 3


def test_what_a_kill_has_left_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchcls.storage.locked_folder._PATIENCE_S", PATIENCE_S)  # a busy machine ends processes late
    path = tmp_path / "o.parquet"
    dying = """if True:
        import sys, time
        from pathlib import Path
        from tests.predictions.test_writer import opened, slides, write
        output = opened(Path(sys.argv[1]))
        write(output, slides(3))
        output.flush()
        print(flush=True)
        time.sleep(1)
    """
    with subprocess.Popen([sys.executable, "-c", dying, path], cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with closing(opened(path)) as output:
            assert output.resumed_rows == 3


@pytest.mark.parametrize("damaged", ["part-000001.arrow", "run.json"])
@pytest.mark.parametrize("content", [b"", b"garbage" * 99, None])
def test_a_damaged_partial_gives_one_clear_error(tmp_path: Path, damaged: str, content: bytes | None) -> None:
    path = tmp_path / "o.parquet"
    partial = path.with_name("o.parquet.partial")
    with closing(opened(path)) as output:
        for chosen in (slides(3), slides(6)[3:]):
            write(output, chosen)
            output.flush()
    whole = (partial / damaged).read_bytes()
    (partial / damaged).write_bytes(whole[: len(whole) // 2] if content is None else content)

    for _ in range(2):
        with pytest.raises(OutputError, match=rf"cannot be read.*start over: rm -r {partial}"):
            opened(path)

    shutil.rmtree(partial)
    assert len(written(path, slides(6))) == 6
