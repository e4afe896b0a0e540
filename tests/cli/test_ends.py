"""However its streams are, a command ends in words, and with a code that says whether its file is whole."""

import json
import os
import pty
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.commandline import PATIENCE_S, after_loading
from tests.conftest import ROOT, draw

CLOSED, FULL = "it is closed", "No space left on device"
LEFT = "| true; exit ${PIPESTATUS[0]}"


def shell(redirected: str, *arguments: str | Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """``batchcls`` started by a shell that redirects its streams; what is left of them, and the exit code."""
    words = shlex.join([sys.executable, "-m", "batchcls", *map(str, arguments)])
    return subprocess.run(
        ["bash", "-c", f"{words} {redirected}"],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slides") / "Zelle-µ-細胞"
    for number in range(36):
        draw(folder / "ab"[number % 2] / f"ü{number}.png", seed=number)
    return folder


def run(slides: Path, out: Path, engine: Path) -> list[str | Path]:
    return ["run", slides, "--out", out, "--engine", engine, "--device", "cpu", "--backend", "null", "--overwrite"]


@pytest.mark.parametrize(
    ("redirected", "reason", "elsewhere"),
    [
        (">&-", CLOSED, "stderr"),
        (">/dev/full", FULL, "stderr"),
        (">&- 2>&-", None, None),
        ("<&- >&- 2>&-", None, None),
        (">/dev/full 2>&1", None, None),
        (LEFT, None, None),
        (f"2>&1 {LEFT}", None, None),
        ("2>&-", None, "stdout"),
        ("2>/dev/full", None, "stdout"),
        ("<&-", None, "stdout"),
    ],
)
def test_a_run_whose_summary_cannot_be_shown_says_so_elsewhere_and_ends_with_0(
    tmp_path: Path, slides: Path, tiny_engine: Path, redirected: str, reason: str | None, elsewhere: str | None
) -> None:
    done = shell(redirected, *run(slides, tmp_path / "o.parquet", tiny_engine))

    said = {"stdout": done.stdout, "stderr": done.stderr}
    assert done.returncode == 0
    assert pq.read_metadata(tmp_path / "o.parquet").num_rows == 36
    for name, text in said.items():
        assert ("36 rows, 0 unreadable -> " in text) == (name == elsewhere)
    assert reason is None or f"batchcls: standard output cannot be written: {reason}" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("redirected", ["2>&-", "2>/dev/full", "2>&1 >&-"])
def test_an_error_that_cannot_be_shown_is_said_elsewhere(tmp_path: Path, tiny_engine: Path, redirected: str) -> None:
    done = shell(redirected, *run(tmp_path, tmp_path / "o.parquet", tiny_engine))
    usage = shell(redirected, "run", tmp_path / "none", "--out", tmp_path / "o.parquet")

    assert (done.returncode, usage.returncode) == (1, 2)
    assert f"batchcls: no image was found in {str(tmp_path)!r}" in done.stdout + done.stderr
    assert "does not exist" in usage.stdout + usage.stderr


def test_a_terminal_that_goes_away_ends_nothing(tmp_path: Path, slides: Path, tiny_engine: Path) -> None:
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "batchcls", *map(str, run(slides, tmp_path / "o.parquet", tiny_engine))]
    process = subprocess.Popen(words, cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    os.close(ours)

    assert process.wait(PATIENCE_S) == 0
    assert pq.read_metadata(tmp_path / "o.parquet").num_rows == 36


@pytest.mark.parametrize("arguments", [("info", "--json"), ("--help",), ("run", "--help"), ("--version",)])
def test_an_answer_that_nobody_gets_is_an_error_and_one_that_nobody_wants_is_none(arguments: tuple[str, ...]) -> None:
    for redirected, code in ((">&-", 1), (">/dev/full", 1), (LEFT, 0), ("2>&-", 0)):
        done = shell(redirected, *arguments)

        assert (done.returncode, "Traceback" in done.stderr) == (code, False), redirected
        assert done.stderr.startswith("batchcls: standard output cannot be written: ") == (code == 1)
    assert done.stdout


def test_a_file_is_never_taken_for_a_stream_that_was_closed(tmp_path: Path, slides: Path, tiny_engine: Path) -> None:
    script = """if True:
        import os, sys
        from batchcls.cli import main
        try:
            main(sys.argv[1:])
        except SystemExit:
            held = open(os.devnull)
            os._exit(held.fileno())
    """
    arguments = shlex.join([sys.executable, "-c", script, "--version"])
    done = subprocess.run(["bash", "-c", f"{arguments} <&- >&- 2>&-"], cwd=ROOT, timeout=PATIENCE_S, check=False)

    assert done.returncode > 2


@pytest.mark.parametrize(
    "environment",
    [
        *({"COLUMNS": columns} for columns in ("0", "²", "1000000000000")),
        {"LANG": "C", "LC_ALL": ""},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "ascii"},
        {"HOME": "/dev/null/none", "XDG_CACHE_HOME": ""},
        {"TMPDIR": "/dev/null/none"},
    ],
    ids=str,
)
def test_surroundings_change_no_row(
    tmp_path: Path, slides: Path, tiny_engine: Path, environment: dict[str, str]
) -> None:
    out = tmp_path / "細.parquet"

    done = shell("", *run(slides, out, tiny_engine), **environment)

    assert (done.returncode, after_loading(done.stderr)) == (0, "")
    assert done.stdout.startswith("36 rows, 0 unreadable -> ")
    assert {path[:2] for path in pq.read_table(out)["path"].to_pylist()} == {"a/", "b/"}
    assert pq.read_table(out)["path"][0].as_py().startswith("a/ü")


def test_every_command_that_makes_files_makes_them_whatever_its_streams_are(
    tmp_path: Path, slides: Path, tiny_engine: Path, tiny_onnx: Path
) -> None:
    labels = "\n".join(f"{path.parent.name}/{path.name},{path.parent.name}" for path in slides.rglob("*.png"))
    table, network = tmp_path / "t.csv", tmp_path / "m.safetensors"
    table.write_text(f"path,label\n{labels}\n")
    commands: dict[str, list[str | Path]] = {
        "o.parquet": run(slides, tmp_path / "o.parquet", tiny_engine),
        "o.html": ["report", tmp_path / "o.parquet", "--out", tmp_path / "o.html"],
        "e/metrics.json": ["evaluate", tmp_path / "o.parquet", "--truth", table, "--out", tmp_path / "e"],
        "engine/engine.json": ["build", tiny_onnx, "--labels", "a,b,c", "--out", tmp_path / "engine"],
        "m.safetensors": [
            "train",
            slides,
            "--out",
            network,
            "--epochs",
            "1",
            *["--architecture", "cnn", "--device", "cpu"],
        ],
        "x/explained.csv": ["explain", network, slides, "--limit", "1", "--out", tmp_path / "x"],
    }

    for product, arguments in commands.items():
        done = shell(">/dev/full 2>&-", *arguments)

        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), product
        assert (tmp_path / product).exists()


WITHOUT_TEMPORARY_FILES = """
import sys, tempfile
from batchcls.cli import main
tempfile.tempdir = "/dev/null/none"
main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("evaluate {o} --truth {s} --out {t}/e", "an evaluation cannot begin: Matplotlib requires"),
        (
            "build {m} --labels a,b --precision int8 --calibrate {s} --out {t}/n",
            "cannot write temporary files: '/dev/null",
        ),
    ],
)
def test_where_no_temporary_file_can_be_written_one_line_says_what_mends_it(
    tmp_path: Path, slides: Path, tiny_engine: Path, command: str, said: str
) -> None:
    import torch
    from safetensors.torch import save_file

    from batchcls.networks.architectures import trainable_network

    shell("", *run(slides, tmp_path / "o.parquet", tiny_engine))
    torch.manual_seed(0)
    save_file(trainable_network("cnn", 2).state_dict(), tmp_path / "cnn.safetensors")
    places = {"o": tmp_path / "o.parquet", "s": slides, "t": tmp_path, "m": tmp_path / "cnn.safetensors"}
    arguments = shlex.split(command.format(**{name: shlex.quote(str(path)) for name, path in places.items()}))

    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TEMPORARY_FILES, *arguments],
        env={**os.environ, "HOME": "/dev/null", "XDG_CACHE_HOME": "", "XDG_CONFIG_HOME": "", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )

    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1
    assert said in last
    assert "TMPDIR=DIR" in last
    assert "Traceback" not in done.stderr


def test_an_info_for_scripts_is_json_in_any_language(tiny_engine: Path) -> None:
    done = shell("", "info", tiny_engine, "--json", LC_ALL="C")

    assert json.loads(done.stdout)["engine"]["labels"] == ["a", "b", "c"]


def test_ctrl_c_while_a_command_still_loads_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n")
    program = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); import batchcls.__main__ as m; "
    done = subprocess.run(
        [sys.executable, "-c", program + "m.command()"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


def test_where_too_few_files_may_be_open_a_line_names_the_limit(
    tmp_path: Path, slides: Path, tiny_engine: Path
) -> None:
    words = [sys.executable, "-m", "batchcls", *map(str, run(slides, tmp_path / "o.parquet", tiny_engine))]
    done = subprocess.run(
        ["bash", "-c", f"ulimit -n 9; {shlex.join(words)}"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 1
    assert "ulimit -n" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


ANSWERING = """if True:
    import os, signal, sys, time
    from batchcls.interrupts import Interrupt
    interrupt = Interrupt(sys.stderr, 600.0)
    interrupt.answer = "stopping after this batch"
    with interrupt.listening():
        os.kill(os.getpid(), signal.SIGINT)
        sys.stdin.readline()  # until the answer was seen
    print(interrupt.signal.name)
"""


def test_a_signal_is_answered_while_the_main_thread_is_busy() -> None:
    process = subprocess.Popen([sys.executable, "-c", ANSWERING], stdin=-1, stdout=-1, stderr=-1, text=True, cwd=ROOT)
    assert process.stderr is not None

    answer = process.stderr.readline()
    stdout, stderr = process.communicate("go on\n", timeout=PATIENCE_S)

    assert (answer, stdout, stderr) == ("stopping after this batch\n", "SIGINT\n", "")


def test_a_command_that_has_to_be_ended_leaves_a_terminal_with_a_cursor_and_a_line_of_its_own() -> None:
    program = (
        "import os, signal, sys, time; from batchcls.interrupts import Interrupt\n"
        "with Interrupt(sys.stderr, 0.1).listening():\n"
        "    sys.stderr.write('\\x1b[?25l a bar'); sys.stderr.flush()\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(600)\n"
    )
    ours, theirs = pty.openpty()
    done = subprocess.run([sys.executable, "-c", program], stderr=theirs, cwd=ROOT, timeout=PATIENCE_S, check=False)
    shown = os.read(ours, 4096).decode()
    while "SIGTERM" not in shown:
        shown += os.read(ours, 4096).decode()
    os.close(ours)
    os.close(theirs)
    assert done.returncode == 128 + signal.SIGTERM
    assert shown.startswith("\x1b[?25l a bar\x1b[?25h\r\nbatchcls: stopped by SIGTERM;")


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("batchcls re", ["report"]), ("batchcls run --prec", ["--precision"]), ("batchcls run --decoder t", ["turbo"])],
)
def test_a_shell_completes_commands_options_and_values(typed: str, offered: list[str]) -> None:
    words = typed.split()
    done = shell(
        "",
        _BATCHCLS_COMPLETE="bash_complete",
        COMP_WORDS=typed,
        COMP_CWORD=str(len(words) - 1),
    )

    assert done.stdout.splitlines() == [f"plain,{word}" for word in offered]
    assert done.stderr == ""


def test_the_script_for_completion_is_one_that_the_shell_takes() -> None:
    script = shell("", _BATCHCLS_COMPLETE="bash_source")
    taken = subprocess.run(["bash", "-c", script.stdout], capture_output=True, text=True, check=False)

    assert "complete -o nosort -F _batchcls_completion batchcls" in script.stdout
    assert (taken.returncode, taken.stderr) == (0, "")
