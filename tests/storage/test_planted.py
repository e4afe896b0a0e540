"""Links, pipes and strangers' files in the place of what is ours: a line names them, and they stay as they are."""

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner, Result

from batchcls.cli import main
from batchcls.networks.architectures import SmallCnn
from tests.conftest import draw
from tests.evaluation.test_evaluate import predictions_file, truth_csv

Plant = Callable[[Path, Path], object]
"""Makes something at a path; the other path is a folder of somebody else."""
PLANTS: dict[str, Plant] = {
    "link to a file": lambda path, outside: path.symlink_to(outside / "thesis.txt"),
    "link to a folder": lambda path, outside: path.symlink_to(outside),
    "dangling link": lambda path, outside: path.symlink_to(outside / "new.txt"),
    "folder": lambda path, outside: path.mkdir(),
    "pipe": lambda path, outside: os.mkfifo(path),
}
OURS = ("whole.parquet", "run.json", "lock", "finished", "part-000000.arrow")
STRANGE = ("run.tmp", "notes.txt", "part-x.arrow")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    (folder / "below").mkdir(parents=True)
    for name in ("thesis.txt", "run.json", "lock", "part-000000.arrow", "below/metrics.json", "engine.json"):
        (folder / name).write_text(f"years of work in {name}")
    return folder


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    for number in range(8):
        draw(folder / "ab"[number % 2] / f"{number}.png", number)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trained") / "net.pth"
    torch.save(SmallCnn(2).eval().state_dict(), path)
    return path


def seen(path: Path) -> dict[str, object]:
    """All that is at and below a path, by name: its kind, and what it says."""
    below = [path, *sorted(path.rglob("*"))] if path.is_dir() and not path.is_symlink() else [path]
    return {str(item): said(item) for item in below}


def said(path: Path) -> object:
    mode = path.lstat().st_mode
    content = os.readlink(path) if stat.S_ISLNK(mode) else path.read_bytes() if stat.S_ISREG(mode) else None
    return stat.S_IFMT(mode), content


def called(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


def run(slides: Path, engine: Path, out: Path, *options: str) -> Result:
    fast = ("--device", "cpu", "--backend", "null", "--decoder", "pillow")
    return called("run", slides, "--engine", engine, "--out", out, *fast, *options)


def check_refused(result: Result, *named: Path) -> None:
    """One line, which names what was met."""
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert [line for line in lines if line.startswith("batchcls: ")] == lines[-1:]
    assert any(repr(str(path)) in lines[-1] for path in named), lines[-1]


@pytest.mark.parametrize("name", [*OURS, *STRANGE])
@pytest.mark.parametrize("kind", PLANTS)
def test_what_is_not_ours_in_the_folder_of_parts_is_named_and_stays(
    slides: Path, tiny_engine: Path, outside: Path, tmp_path: Path, name: str, kind: str
) -> None:
    folder = tmp_path / "o.parquet.partial"
    folder.mkdir()
    PLANTS[kind](folder / name, outside)
    before = seen(outside), said(folder / name)

    result = run(slides, tiny_engine, tmp_path / "o.parquet")

    check_refused(result, folder / name)
    assert (seen(outside), said(folder / name)) == before
    assert not (tmp_path / "o.parquet").exists()


@pytest.mark.parametrize("name", STRANGE)
def test_a_strangers_file_among_the_parts_is_named_before_any_of_them_goes(
    slides: Path, tiny_engine: Path, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "o.parquet.partial"
    folder.mkdir()
    for planted in (name, "finished", "part-000000.arrow"):
        (folder / planted).write_text("mine")

    result = run(slides, tiny_engine, tmp_path / "o.parquet")

    check_refused(result, folder / name)
    assert {path.name for path in folder.iterdir()} - {"lock"} == {name, "finished", "part-000000.arrow"}


@pytest.mark.parametrize("name", OURS)
def test_a_file_of_two_names_keeps_its_content_under_the_other(
    slides: Path, tiny_engine: Path, outside: Path, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "o.parquet.partial"
    folder.mkdir()
    os.link(outside / "thesis.txt", folder / name)
    before = seen(outside)

    result = run(slides, tiny_engine, tmp_path / "o.parquet")

    if name == "run.json":
        check_refused(result, folder / name)
    else:
        assert (result.exit_code, result.stderr) == (0, result.stderr)
        assert len(pq.read_table(tmp_path / "o.parquet")) == 8
        assert not folder.exists()
    assert seen(outside) == before


@pytest.mark.parametrize("options", [(), ("--overwrite",)])
@pytest.mark.parametrize("kind", [kind for kind in PLANTS if kind != "folder"])
def test_neither_the_output_nor_its_folder_of_parts_is_followed_elsewhere(
    slides: Path, tiny_engine: Path, outside: Path, tmp_path: Path, kind: str, options: tuple[str, ...]
) -> None:
    for name in ("o.parquet", "p.parquet.partial"):
        PLANTS[kind](tmp_path / name, outside)
    before = seen(outside), said(tmp_path / "o.parquet"), said(tmp_path / "p.parquet.partial")

    first = run(slides, tiny_engine, tmp_path / "o.parquet", *options)
    second = run(slides, tiny_engine, tmp_path / "p.parquet", *options)

    if kind != "link to a folder":  # which is a folder to click
        check_refused(first, tmp_path / "o.parquet")
    assert first.exit_code in (1, 2)
    check_refused(second, tmp_path / "p.parquet.partial")
    assert (seen(outside), said(tmp_path / "o.parquet"), said(tmp_path / "p.parquet.partial")) == before


def test_folders_on_the_way_may_be_links(slides: Path, tiny_engine: Path, tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "home").symlink_to(tmp_path / "scratch")
    out = tmp_path / "home" / "below" / "o.parquet"

    assert run(slides, tiny_engine, out).exit_code == 0
    assert called("report", out, "--out", tmp_path / "home" / "r.html").exit_code == 0

    assert {path.name for path in (tmp_path / "scratch").rglob("*")} == {"below", "o.parquet", "r.html"}


@pytest.mark.skipif(os.geteuid() != 0, reason="another user's folder is made by root alone")
def test_another_users_folder_is_refused(slides: Path, tiny_engine: Path, tmp_path: Path) -> None:
    folder = tmp_path / "o.parquet.partial"
    folder.mkdir()
    (folder / "finished").touch()
    os.chown(folder, 12_345, 12_345)

    result = run(slides, tiny_engine, tmp_path / "o.parquet")

    check_refused(result, folder)
    assert "another user" in result.stderr
    assert [path.name for path in folder.iterdir()] == ["finished"]


@pytest.mark.parametrize("bytes_", [240, 250, 255])
def test_the_longest_names_work_or_end_in_one_line(
    slides: Path, tiny_engine: Path, tmp_path: Path, bytes_: int
) -> None:
    out = tmp_path / f"{'n' * (bytes_ - 8)}.parquet"

    result = run(slides, tiny_engine, out)

    if bytes_ + len(".partial") <= 255:
        assert result.exit_code == 0
        assert called("report", out, "--out", tmp_path / f"{'n' * (bytes_ - 5)}.html").exit_code == 0
    else:
        check_refused(result, tmp_path / f"{out.name}.partial")
        assert "File name too long" in result.stderr


def test_a_name_that_no_folder_takes_ends_in_one_line(
    slides: Path, tiny_engine: Path, tiny_onnx: Path, checkpoint: Path, tmp_path: Path
) -> None:
    out, source = tmp_path / ("n" * 256), predictions_file(tmp_path / "p.parquet", [("1.png", "a", 0.9)])
    truth = truth_csv(tmp_path / "t.csv", [("1.png", "a")])

    for result in (
        run(slides, tiny_engine, Path(f"{out}.parquet")),
        called("report", source, "--out", out),
        called("evaluate", source, "--truth", truth, "--out", out),
        called("build", tiny_onnx, "--labels", "a,b,c", "--out", out, "--device", "cpu"),
        called("explain", checkpoint, slides / "a", "--architecture", "cnn", "--labels", "a,b", "--out", out),
        called("train", slides, "--out", f"{out}.safetensors", "--device", "cpu"),
    ):
        assert isinstance(result.exception, SystemExit), result.exception
        assert "File name too long; choose another --out" in result.stderr


@pytest.mark.parametrize("kind", PLANTS)
def test_a_report_is_written_to_no_link_pipe_or_folder(outside: Path, tmp_path: Path, kind: str) -> None:
    source = predictions_file(tmp_path / "p.parquet", [("1.png", "a", 0.9)])
    PLANTS[kind](tmp_path / "r.html", outside)
    before = seen(outside), said(tmp_path / "r.html")

    result = called("report", source, "--out", tmp_path / "r.html", "--overwrite")

    if result.exit_code != 2:  # click's own, of folders
        check_refused(result, tmp_path / "r.html")
    assert (seen(outside), said(tmp_path / "r.html")) == before


@pytest.mark.parametrize("kind", PLANTS)
@pytest.mark.parametrize("name", ["", "metrics.json", "wrong.jpg"])
def test_an_evaluation_is_written_to_no_link_and_replaces_no_stranger(
    outside: Path, tmp_path: Path, kind: str, name: str
) -> None:
    source = predictions_file(tmp_path / "p.parquet", [("1.png", "a", 0.9), ("2.png", "b", 0.8)])
    truth = truth_csv(tmp_path / "t.csv", [("1.png", "a"), ("2.png", "a")])
    folder = tmp_path / "evaluation"
    if name:
        folder.mkdir()
    elif kind == "folder":
        return  # which is as it should be
    PLANTS[kind](folder / name, outside)
    before = seen(outside), said(folder / name)

    result = called("evaluate", source, "--truth", truth, "--out", folder, "--overwrite")

    if result.exit_code != 2:
        check_refused(result, folder / name)
    assert (seen(outside), said(folder / name)) == before


@pytest.mark.parametrize("kind", PLANTS)
@pytest.mark.parametrize("name", ["", "explained.csv", "contact_sheet.jpg", "0001_old.cam.png"])
def test_an_explanation_is_written_to_no_link_and_replaces_no_stranger(
    slides: Path, checkpoint: Path, outside: Path, tmp_path: Path, kind: str, name: str
) -> None:
    folder = tmp_path / "explanation"
    if name:
        folder.mkdir()
    elif kind == "folder":
        return
    PLANTS[kind](folder / name, outside)
    before = seen(outside), said(folder / name)

    result = called(
        *("explain", checkpoint, slides / "a" / "0.png", "--architecture", "cnn", "--labels", "a,b"),
        *("--out", folder, "--overwrite"),
    )

    if result.exit_code != 2:
        check_refused(result, folder / name)
    assert (seen(outside), said(folder / name)) == before


@pytest.mark.parametrize("kind", PLANTS)
@pytest.mark.parametrize("name", ["", "engine.json", "notes"])
def test_an_engine_takes_the_place_of_no_link_and_loses_nothing_of_a_strangers(
    tiny_onnx: Path, outside: Path, tmp_path: Path, kind: str, name: str
) -> None:
    folder = tmp_path / "engine"
    if name:
        folder.mkdir()
    elif kind == "folder":
        return
    PLANTS[kind](folder / name, outside)
    before = seen(outside), said(folder / name)

    result = called("build", tiny_onnx, "--labels", "a,b,c", "--out", folder, "--device", "cpu", "--overwrite")

    check_refused(result, folder, folder / name)
    assert (seen(outside), said(folder / name)) == before


@pytest.mark.parametrize("name", ["plans", "plans/notes.txt", "plans/sm86-any-tensorrt_rtx.plan"])
@pytest.mark.parametrize("kind", PLANTS)
def test_a_rebuilt_engine_loses_no_strangers_file_among_its_plans(
    tiny_onnx: Path, tiny_engine: Path, outside: Path, tmp_path: Path, kind: str, name: str
) -> None:
    folder, planted = Path(shutil.copytree(tiny_engine, tmp_path / "engine")), tmp_path / "engine" / name
    planted.parent.mkdir(exist_ok=True)
    if (kind, name) == ("folder", "plans"):
        (planted / "mine").mkdir(parents=True)
    else:
        PLANTS[kind](planted, outside)
    before = seen(outside), seen(folder)

    result = called("build", tiny_onnx, "--labels", "a,b,c", "--out", folder, "--device", "cpu", "--overwrite")

    check_refused(result, planted, planted / "mine")
    assert (seen(outside), seen(folder)) == before


def test_what_stands_in_an_engine_folder_besides_is_kept_as_it_is(
    tiny_onnx: Path, outside: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "engine"
    build = ("build", tiny_onnx, "--labels", "a,b,c", "--out", folder, "--device", "cpu", "--overwrite")
    assert called(*build).exit_code == 0
    (folder / "data").symlink_to(outside)
    (folder / "below").mkdir()
    (folder / "below" / "README").write_text("mine")
    folder.chmod(0o700)
    before = seen(outside)

    assert called(*build).exit_code == 0

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert os.readlink(folder / "data") == str(outside)
    assert (folder / "below" / "README").read_text() == "mine"
    assert seen(outside) == before
    assert {path.name for path in tmp_path.iterdir()} == {"engine", "outside"}


@pytest.mark.parametrize("kind", PLANTS)
@pytest.mark.parametrize("name", ["net.safetensors", "net.metrics.json", "net.history.parquet.partial"])
def test_a_training_writes_to_no_link_and_replaces_no_stranger(
    slides: Path, outside: Path, tmp_path: Path, kind: str, name: str
) -> None:
    planted = tmp_path / name
    if name.endswith(".partial") and kind == "folder":
        return
    PLANTS[kind](planted, outside)
    before = seen(outside), said(planted)

    result = called(
        *("train", slides, "--out", tmp_path / "net.safetensors", "--architecture", "cnn"),
        *("--overwrite", "--device", "cpu", "--val", "0.25", "--test", "0"),
    )

    if result.exit_code != 2:
        check_refused(result, planted)
    assert (seen(outside), said(planted)) == before


@pytest.mark.parametrize("command", ["run", "report", "evaluate", "explain", "build", "train"])
def test_an_empty_out_is_no_name_for_the_current_folder(command: str, tmp_path: Path) -> None:
    result = called(command, tmp_path, "--out", "")

    assert result.exit_code == 2
    assert "Invalid value for '--out': it is empty" in result.stderr


@pytest.mark.parametrize("command", ["report", "train"])
def test_a_file_is_not_called_like_a_folder(command: str, tmp_path: Path) -> None:
    source = predictions_file(tmp_path / "p.parquet", [("1.png", "a", 0.9)])

    result = called(command, source, "--out", f"{tmp_path}/results/")

    assert result.exit_code == 2
    assert "results/' names a folder; name a file in it" in result.stderr
    assert not (tmp_path / "results").exists()
