"""`batchcls run` as users meet it: exit codes, what it prints, and what the file says of its making."""

import ctypes
import json
import os
import re
import shlex
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from batchcls.engine.manifest import Manifest
from tests.commandline import after_loading, finished, invoked
from tests.conftest import draw

CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2
PR_CAPBSET_DROP = 24

Run = tuple["subprocess.CompletedProcess[str]", Path]
"""A run that has ended, and what it wrote."""


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen images, seven files that are none, and a text that is passed by."""
    folder = tmp_path_factory.mktemp("mixed")
    for seed in range(16):
        draw(folder / f"{seed}.jpg", seed)
    whole = (folder / "0.jpg").read_bytes()
    (folder / "empty.jpg").touch()
    (folder / "gone.jpg").symlink_to(folder / "nowhere")
    (folder / "text.jpg").write_text("no image")
    (folder / "notes.txt").write_text("passed by")
    draw(folder / "moving.gif")
    for number, length in enumerate((len(whole) // 4, len(whole) // 2, len(whole) - 200)):
        (folder / f"truncated{number}.jpg").write_bytes(whole[:length])
    return folder


@pytest.fixture(scope="module")
def mixed_run(mixed: Path, tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("out") / "mixed.parquet"
    return finished(mixed, "--out", out, "--engine", tiny_engine), out


def test_unreadable_files_keep_their_rows_and_cost_no_exit_code(
    mixed_run: Run,
) -> None:
    process, out = mixed_run

    kinds = Counter(row["error"] and row["error"].partition(":")[0] for row in pq.read_table(out).to_pylist())

    assert process.returncode == 0
    assert kinds == {None: 16, "corrupt": 3, "empty": 1, "missing": 1, "unsupported": 1, "not an image": 1}


def test_broken_files_leave_no_library_noise_on_stderr(
    mixed_run: Run,
) -> None:
    assert after_loading(mixed_run[0].stderr) == ""


def test_the_summary_names_what_was_done(mixed_run: Run) -> None:
    process, out = mixed_run
    labels = Counter(pq.read_table(out)["label"].drop_null().to_pylist())

    for promised in (
        rf"^23 rows, 7 unreadable -> {re.escape(str(out))}$",
        r"tiny, openvino \w+ on cpu",
        ", ".join(f"{label} {count}" for label, count in sorted(labels.items(), key=lambda item: -item[1])),
        "corrupt 3, ",
        "not an image 1",
        r"[\d,.]+ images/s",
        r"\d+ MiB",
        *(rf"{stage} [\d.]+" for stage in ("read", "decode", "infer", "write")),
    ):
        assert re.search(promised, process.stdout, re.MULTILINE), promised


def test_the_file_says_how_it_was_made(mixed_run: Run, mixed: Path, tiny_engine: Path) -> None:
    metadata = json.loads(pq.read_schema(mixed_run[1]).metadata[b"batchcls"])
    manifest = Manifest.read(tiny_engine)

    assert {"python", "batchcls", "dali", "openvino", "pyarrow"} <= set(metadata["versions"])
    assert metadata["engine"]["onnx_sha256"] == manifest.onnx_sha256
    assert metadata["engine"]["checkpoint_sha256"] == manifest.checkpoint_sha256
    assert metadata["labels"] == ["a", "b", "c"]
    assert metadata["preprocess"]["size_px"] == [32, 32]
    assert (metadata["backend"], metadata["device"]) == ("openvino", "cpu")
    assert metadata["precision"] in ("bf16", "f32")
    assert metadata["arguments"]["slides"] == [str(mixed)]
    assert metadata["decoder"] == "turbo"
    assert metadata["arguments"]["batch_size"] is None
    assert metadata["counts"]["rows"] == 23
    assert sum(metadata["counts"]["labels"].values()) == 16
    assert metadata["counts"]["errors"]["corrupt"] == 3
    assert metadata["counts"]["skipped"] == {"not an image": 1}
    assert metadata["started"] < metadata["ended"]


def test_a_run_ends_with_the_command_to_type_next(mixed_run: Run) -> None:
    process, out = mixed_run

    last = process.stdout.splitlines()[-1]

    assert last == f"next      {shlex.join(['batchcls', 'report', str(out), '--out', str(out.with_suffix('.html'))])}"


def test_quiet_prints_nothing(mixed: Path, tiny_engine: Path, tmp_path: Path) -> None:
    process = finished(mixed, "--out", tmp_path / "o.parquet", "--engine", tiny_engine, "--quiet")

    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")
    assert len(pq.read_table(tmp_path / "o.parquet")) == 23


def test_strict_exits_with_3_when_a_file_is_unreadable(mixed: Path, tiny_engine: Path, tmp_path: Path) -> None:
    strict = ("--engine", tiny_engine, "--strict")

    assert invoked(mixed, "--out", tmp_path / "mixed.parquet", *strict).exit_code == 3
    assert invoked(mixed / "0.jpg", "--out", tmp_path / "sound.parquet", *strict).exit_code == 0
    assert len(pq.read_table(tmp_path / "mixed.parquet")) == 23


def drop_privileges() -> None:
    """Root without the right to read what its mode forbids."""
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
        if libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")


def test_what_may_not_be_read_is_told(tmp_path: Path, tiny_engine: Path) -> None:
    for name in ("free.jpg", "forbidden.jpg", "closed/hidden.jpg"):
        draw(tmp_path / "slides" / name)
    (tmp_path / "slides" / "forbidden.jpg").chmod(0)
    (tmp_path / "slides" / "closed").chmod(0)
    options = {"preexec_fn": drop_privileges} if os.geteuid() == 0 else {}

    process = finished(tmp_path / "slides", "--out", tmp_path / "o.parquet", "--engine", tiny_engine, **options)

    (tmp_path / "slides" / "closed").chmod(0o700)
    rows = pq.read_table(tmp_path / "o.parquet").to_pylist()
    assert process.returncode == 0
    assert [(row["path"], row["error"]) for row in rows] == [
        ("forbidden.jpg", "unreadable: Permission denied"),
        ("free.jpg", None),
    ]
    assert f"could not be listed: {tmp_path}/slides/closed: Permission denied" in process.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("slides", "--out", "o.parquet", "--engine", "nowhere"), 1, "'nowhere' holds no engine.json"),
        (("slides", "--out", "o.parquet"), 1, "engines/one, engines/two"),
        (("bare", "--out", "o.parquet", "--engine", "engines/one"), 1, "no image was found in 'bare' (1 not an image"),
        (("slides", "--out", "o.parquet", "--engine", "engines/one", "--device", "cuda:7"), 1, "'cuda:7' was asked"),
        (("slides", "--out", "old.parquet", "--engine", "engines/one"), 1, "--overwrite"),
        (("slides", "--engine", "engines/one"), 2, "'--out'"),
        (("nowhere", "--out", "o.parquet"), 2, "'nowhere' does not exist"),
        (("slides", "--out", "o.parquet", "--batch-size", "0"), 2, "'--batch-size'"),
    ],
)
def test_what_cannot_be_run_says_why_and_leaves_nothing(
    tmp_path: Path,
    tiny_engine: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "slides" / "0.jpg")
    for name in ("one", "two"):
        shutil.copytree(tiny_engine, tmp_path / "engines" / name)
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "notes.txt").touch()
    (tmp_path / "old.parquet").touch()
    before = sorted(tmp_path.rglob("*"))

    result = invoked(*arguments)

    assert result.exit_code == code
    assert message in result.stderr
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("device", ["cuda:x", "cuda:-1", "gpu", "cuda:", ""])
def test_a_device_that_is_none_is_refused_in_one_line(
    mixed: Path, tiny_engine: Path, tmp_path: Path, device: str
) -> None:
    result = invoked(mixed, "--out", tmp_path / "o.parquet", "--engine", tiny_engine, "--device", device)

    assert isinstance(result.exception, SystemExit)
    assert result.exit_code in (1, 2)
    assert f"{device!r}" in result.stderr


def test_the_engine_is_found_in_the_environment_or_below_engines(
    tmp_path: Path, tiny_engine: Path, mixed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    none = invoked(mixed, "--out", "o.parquet")
    shutil.copytree(tiny_engine, tmp_path / "engines" / "only")
    below = invoked(mixed, "--out", "below.parquet")
    shutil.copytree(tiny_engine, tmp_path / "engines" / "another")
    monkeypatch.setenv("BATCHCLS_ENGINE", str(tiny_engine))
    named = invoked(mixed, "--out", "named.parquet")

    assert (none.exit_code, below.exit_code, named.exit_code) == (1, 0, 0)
    assert "holds 0 (none)" in none.stderr
    assert pq.read_table("below.parquet").equals(pq.read_table("named.parquet"))


@pytest.mark.parametrize("modified_s", [15_000_000_000, 99_999_999_999_999, -99_999_999_999])
def test_a_time_that_no_column_holds_is_left_out(modified_s: int, tiny_engine: Path, tmp_path: Path) -> None:
    draw(tmp_path / "s" / "a.jpg")
    draw(tmp_path / "s" / "b.jpg")
    os.utime(tmp_path / "s" / "b.jpg", (0, modified_s))
    if abs((tmp_path / "s" / "b.jpg").stat().st_mtime_ns) < 1 << 63:
        pytest.skip("this file system holds no such times")

    done = finished(tmp_path / "s", "--out", tmp_path / "o.parquet", "--engine", tiny_engine, "--backend", "null")

    assert done.returncode == 0, done.stderr
    rows = pq.read_table(tmp_path / "o.parquet").to_pylist()
    assert [(row["error"], row["modified"] is None) for row in rows] == [(None, False), (None, True)]
