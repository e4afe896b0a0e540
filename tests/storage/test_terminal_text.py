"""What strangers wrote is shown escaped, wherever it stands and whoever shows it."""

import ast
import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from batchcls.cli import main
from batchcls.storage.terminal_text import escaped, escaped_json, escaped_lines
from tests.commandline import PATIENCE_S, after_loading
from tests.conftest import ROOT, draw

OSC = "\x1b]0;owned\x07"
HOSTILE = f"a{OSC}\x1b[2J\x9b31m\x7f\r\n\u202egpj\u2066\u2028[/b][link=x]"
HARMFUL = {*map(chr, [*range(10), *range(11, 32), *range(127, 160)]), *"\u2028\u2029\u202a\u202b\u202c\u202d\u202e"}
HARMFUL |= {*"\u2066\u2067\u2068\u2069", *map(chr, range(0xD800, 0xE000))}


def command(*arguments: str | Path, **options: Any) -> "subprocess.CompletedProcess[str]":
    """``batchcls`` as a process of its own, and what it says as it says it."""
    done = subprocess.run(
        [sys.executable, "-m", "batchcls", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
        **options,
    )
    texts = (text.decode() for text in (done.stdout, done.stderr))
    return subprocess.CompletedProcess(done.args, done.returncode, *texts)


def check_harmless(done: "subprocess.CompletedProcess[str]") -> None:
    assert "Traceback" not in done.stderr
    assert not HARMFUL & set(done.stdout + done.stderr)


def copied(engine: Path, to: Path, **values: Any) -> Path:
    """An engine folder with other values in its manifest."""
    shutil.copytree(engine, to)
    manifest = json.loads((to / "engine.json").read_text())
    (to / "engine.json").write_text(json.dumps(manifest | values))
    return to


@given(st.text(st.characters(codec=None)))
def test_nothing_harmful_is_left_of_any_text_and_the_rest_stays(text: str) -> None:
    assert not (HARMFUL | {"\n"}) & set(escaped(text))
    assert not HARMFUL & set(escaped_lines(text))
    assert escaped_lines(text).count("\n") == text.count("\n")
    assert escaped(escaped(text)) == escaped(text)


@given(st.recursive(st.text(st.characters(codec=None)) | st.integers(), lambda inner: st.lists(inner)))
def test_json_keeps_its_values(value: Any) -> None:
    shown = escaped_json(json.dumps(value, ensure_ascii=False, indent=1))

    assert not HARMFUL & set(shown)
    assert json.loads(shown) == value


@pytest.mark.parametrize("text", ["C:\\new\\x1b.png", "Zelle-µ-ü", "細胞", "👩‍🔬🔬", "[/b] [link]", "a  b", "\u200e"])
def test_what_can_be_read_stays_as_it_is(text: str) -> None:
    assert escaped(text) == text


def test_control_characters_and_bytes_that_are_no_text_can_be_read() -> None:
    assert escaped("\x1b\x9b\n\t\u202e\u2028\ud800") == r"\x1b\x9b\n\t\u202e\u2028\ud800"
    assert escaped(os.fsdecode(b"a\xff\x80.png")) == r"a\xff\x80.png"


@pytest.mark.parametrize(
    "arguments",
    [
        (HOSTILE,),
        (f"--{HOSTILE}",),
        ("run", HOSTILE, "--out", "x"),
        ("run", ".", "--out", "x", f"--{HOSTILE}"),
        ("run", ".", "--out", "x", "--device", HOSTILE),
        ("run", ".", "--out", "x", "--threads", HOSTILE),
        ("run", ".", "--out", "x", "--engine", HOSTILE),
        ("run", ".", HOSTILE, "--out", "x"),
        ("run", "docs", "--out", HOSTILE, "--engine", "engines/all4-googlenet"),
        ("info", HOSTILE),
        ("build", HOSTILE),
        ("build", ".", "--labels", HOSTILE),
        ("train", ".", "--out", "x", "--weights", HOSTILE),
        ("train", "tests", "--out", HOSTILE),
        ("report", "README.md", "--out", HOSTILE),
        ("evaluate", "README.md", "--truth", "tests", "--out", HOSTILE, "--labels", HOSTILE),
        ("explain", ".", "--out", HOSTILE, "--class", HOSTILE),
    ],
)
def test_an_error_repeats_an_argument_without_obeying_it(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("docs", "engines", "tests", "README.md"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)  # some of the commands make the folder that the output is to stand in

    done = CliRunner().invoke(main, arguments)

    assert done.exit_code in (1, 2)
    assert 1 <= len(done.stderr.splitlines()) <= 4
    assert not HARMFUL & set(done.output)


def test_an_error_of_a_process_is_escaped_as_well() -> None:
    done = command("run", HOSTILE, "--out", "x")

    assert done.returncode == 2
    assert escaped(HOSTILE) in done.stderr
    check_harmless(done)


def test_a_run_shows_names_and_labels_of_strangers_escaped(tmp_path: Path, tiny_engine: Path) -> None:
    slides = tmp_path / HOSTILE
    draw(slides / "a.png")
    (slides / "b.png").write_bytes(b"none")
    engine = copied(tiny_engine, tmp_path / "engine", labels=[HOSTILE, "b" + HOSTILE, "c" + HOSTILE], name=HOSTILE)
    out = tmp_path / f"{HOSTILE.replace('/', '')}.parquet"

    done = command("run", slides, "--out", out, "--engine", engine, "--device", "cpu", "--backend", "null")
    table, page = pq.read_table(out), tmp_path / f"{HOSTILE.replace('/', '')}.html"
    reported = command("report", out, "--out", page)
    described = command("info", engine)
    as_json = command("info", engine, "--json")

    for each in (done, reported, described, as_json):
        assert each.returncode == 0, each.stderr
        check_harmless(each)
    assert escaped(HOSTILE) in done.stdout
    assert escaped(str(page)) in reported.stdout
    assert "[b][link=x].parquet" in done.stdout, "no bracket is markup"
    assert json.loads(as_json.stdout)["engine"]["labels"][0] == HOSTILE
    assert table["root"].to_pylist() == [str(slides)] * 2


def test_brackets_in_a_name_are_no_markup(tmp_path: Path, tiny_engine: Path) -> None:
    draw(tmp_path / "s" / "a.png")
    (tmp_path / "a[").mkdir()
    out = tmp_path / "a[" / "b].parquet"
    arguments = ("run", tmp_path / "s", "--out", out, "--engine", tiny_engine, "--device", "cpu", "--backend", "null")

    done = command(*arguments)

    assert (done.returncode, after_loading(done.stderr)) == (0, "")
    assert f"-> {out}" in done.stdout


def test_on_a_terminal_a_bar_is_drawn_and_names_do_nothing(tmp_path: Path, tiny_engine: Path) -> None:
    draw(tmp_path / HOSTILE / "a.png")
    ours, theirs = pty.openpty()
    arguments = ["run", tmp_path / HOSTILE, "--out", tmp_path / "o.parquet", "--engine", tiny_engine, "--device", "cpu"]

    process = subprocess.Popen(
        [sys.executable, "-m", "batchcls", *map(str, arguments), "--backend", "null"],
        cwd=ROOT,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80"},
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 65536)
        except OSError:  # as a terminal says that its last process has gone
            break
    os.close(ours)

    assert process.wait(PATIENCE_S) == 0
    assert b"classifying" in shown
    assert b"\x1b[?25h" in shown, "the cursor is there again"
    assert b"\x1b]" not in shown


PRINTING = {"print", "echo", "secho", "Console", "write"}
"""Calls that can show something."""
ALLOWED = {"batchcls/cli/printing.py", "batchcls/cli/progress_console.py", "batchcls/cli/standard_streams.py"}


def shown_in(module: Path) -> list[str]:
    """Calls in a module that would show something in another way than through `batchcls.cli`'s own."""
    found = []
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("sys.stdout", "sys.__stdout__", "sys.__stderr__"):
            found.append(ast.unparse(node))
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        if called in ("print", "Console", "sys.stderr.write") or called.partition(".")[0] in ("click", "rich"):
            found += [called] if called.rpartition(".")[2] in PRINTING else []
    return found


def test_nothing_is_printed_in_another_way() -> None:
    modules = {path.relative_to(ROOT).as_posix(): path for path in (ROOT / "batchcls").rglob("*.py")}

    others = {name: shown for name, path in modules.items() if name not in ALLOWED and (shown := shown_in(path))}

    assert modules.keys() >= ALLOWED
    assert others == {}
