"""Wherever a run is killed, the same command ends with 0 and the same rows; `tests.faults` has every place."""

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.commandline import PATIENCE_S, after_loading, finished
from tests.conftest import ROOT, draw
from tests.faults.kill_everywhere import SCENARIOS

SOME = """
import sys
from pathlib import Path
from tests.faults.kill_everywhere import all_faults

slides, engine, scratch, scenario = sys.argv[1:]
found = all_faults(Path(slides), Path(engine), Path(scratch), [scenario], stride=6)
assert [wrong for _, _, wrong in found] == [[]] * len(found), found
assert all(kills for _, kills, _ in found)
"""


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    for seed in range(6):
        draw(folder / f"{seed}.png", seed, (64, 48) if seed % 2 else (16, 12))
    (folder / "empty.jpg").touch()
    return folder


@pytest.mark.parametrize("scenario", sorted(set(SCENARIOS) - {"nothing to do"}))
def test_the_same_command_after_a_kill_ends_well(
    slides: Path, tiny_engine: Path, tmp_path: Path, scenario: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SOME, slides, tiny_engine, tmp_path, scenario],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        cwd=ROOT,
    )

    assert done.returncode == 0, done.stderr


def test_the_same_command_again_says_that_all_is_done_and_reads_nothing(
    slides: Path, tiny_engine: Path, tmp_path: Path
) -> None:
    out = tmp_path / "o.parquet"
    first = finished(slides, "--out", out, "--engine", tiny_engine)
    written = out.read_bytes()
    draw(slides / "later.png")

    second = finished(slides, "--out", out, "--engine", tiny_engine, "--batch-size", "3", "--threads", "1")
    (slides / "later.png").unlink()

    assert (first.returncode, second.returncode) == (0, 0)
    assert "every row is done" in second.stderr
    assert "7 rows, 1 unreadable" in second.stdout
    assert out.read_bytes() == written
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("option", [("--decoder", "pillow"), ("--backend", "null")])
def test_a_file_of_another_run_is_refused_with_what_differs(
    slides: Path, tiny_engine: Path, tmp_path: Path, option: tuple[str, str]
) -> None:
    out = tmp_path / "o.parquet"
    finished(slides, "--out", out, "--engine", tiny_engine)

    other = finished(slides, "--out", out, "--engine", tiny_engine, *option)

    assert other.returncode == 1
    assert f"{option[0].removeprefix('--')} '{option[1]}'" in other.stderr
    assert "--overwrite" in other.stderr
    assert len(after_loading(other.stderr).splitlines()) == 1


def test_images_that_were_too_large_are_done_under_a_new_limit(slides: Path, tiny_engine: Path, tmp_path: Path) -> None:
    out, whole = tmp_path / "o.parquet", tmp_path / "whole.parquet"
    finished(slides, "--out", whole, "--engine", tiny_engine)
    first = finished(slides, "--out", out, "--engine", tiny_engine, "--max-pixels", "1000")

    same = finished(slides, "--out", out, "--engine", tiny_engine, "--max-pixels", "1000")
    second = finished(slides, "--out", out, "--engine", tiny_engine)

    assert "too large 3" in first.stdout
    assert "every row is done" in same.stderr
    assert second.returncode == 0
    assert pq.read_table(out).equals(pq.read_table(whole))
    assert set(tmp_path.iterdir()) == {out, whole}
