"""What a dead disk or a limit has cost is done again: by a resumed run, and by the same command after the whole."""

import errno
import os
import subprocess
import sys
from collections.abc import Collection, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchcls.engine.postprocess import to_predictions
from batchcls.predictions.existing_output import ExistingOutput
from batchcls.predictions.writer import PredictionsWriter, open_writer
from batchcls.records import BatchResult, Failure, Slide
from tests.commandline import PATIENCE_S
from tests.conftest import ROOT
from tests.predictions.test_writer import IDENTITY, LABELS, slides, write

ALL = slides(12)


def opened(path: Path, max_pixels: int = 100, **changed: Any) -> PredictionsWriter | ExistingOutput:
    options = {"roots": ["slides"], "labels": LABELS, "identity": IDENTITY, "limits": {"max_pixels": max_pixels}}
    return open_writer(path, **{**options, **changed})


def classified(output: PredictionsWriter, chosen: Sequence[Slide], dead: Collection[int], max_pixels: int) -> None:
    """Rows of ``chosen``; the Nth slide has N pixels, and cannot be read if N is among ``dead``."""
    for slide in chosen:
        number = int(slide.path[:5])
        if number in dead:
            write_failure(output, Failure(slide, "unreadable", os.strerror(errno.EIO)))
        elif number > max_pixels:
            write_failure(output, Failure(slide, "too large", f"it has {number} pixels", number, 1))
        else:
            write(output, [slide])


def write_failure(output: PredictionsWriter, failure: Failure) -> None:
    output.write(BatchResult([], [], to_predictions(np.zeros((0, 3), np.float32)), [failure]))


def finish(output: PredictionsWriter) -> None:
    counts = output.counts()
    said = {"rows": counts.rows, "labels": counts.labels, "errors": counts.errors, "skipped": {}}
    output.finish({"counts": said, "unlisted_folders": []})


def whole(path: Path, max_pixels: int = 100, dead: Collection[int] = (), listed: Sequence[Slide] = ALL) -> bool:
    """Whether a run had anything to do."""
    output = opened(path, max_pixels)
    if isinstance(output, ExistingOutput):
        return False
    with closing(output):
        classified(output, list(output.missing(listed)), dead, max_pixels)
        finish(output)
    return True


def errors(path: Path) -> dict[str, str]:
    rows = pq.read_table(path).to_pylist()
    assert len(rows) == len(ALL)
    return {row["path"]: row["error"] for row in rows if (row["error"] or "").startswith(("unreadable", "too large"))}


def test_a_resumed_run_reads_again_what_a_dead_disk_has_cost(tmp_path: Path) -> None:
    path = tmp_path / "o.parquet"
    first = opened(path)
    assert isinstance(first, PredictionsWriter)
    with closing(first):
        classified(first, ALL[:6], {2, 4}, 100)
        first.flush()

    second = opened(path)
    assert isinstance(second, PredictionsWriter)
    with closing(second):
        assert second.resumed_rows == 4
        assert [slide.path for slide in second.missing(ALL[:6])] == ["00002.png", "00004.png"]


def test_the_same_command_reads_again_what_a_dead_disk_has_cost_and_keeps_the_file_until_then(tmp_path: Path) -> None:
    path = tmp_path / "o.parquet"
    whole(path, dead={2, 4})
    before = path.read_bytes()

    again = opened(path)
    assert isinstance(again, PredictionsWriter)
    with closing(again):
        assert again.resumed_rows == len(ALL) - 2
        assert {slide.path for slide in again.missing(ALL)} == {"00002.png", "00004.png"}
        classified(again, list(again.missing(ALL)), {4}, 100)
        again.flush()
    assert path.read_bytes() == before

    assert whole(path, dead={4})
    assert list(errors(path)) == ["00004.png"]
    assert whole(path)
    assert errors(path) == {}
    assert not whole(path)
    assert list(tmp_path.iterdir()) == [path]


def test_no_row_is_lost_with_a_folder_that_is_not_listed_this_time(tmp_path: Path) -> None:
    path = tmp_path / "o.parquet"
    whole(path, dead={2, 4})

    assert whole(path, dead={2, 4}, listed=[])

    assert list(errors(path)) == ["00002.png", "00004.png"]


def test_too_large_is_done_again_under_another_limit_alone(tmp_path: Path) -> None:
    path = tmp_path / "o.parquet"
    whole(path, max_pixels=8)

    assert not whole(path, max_pixels=8)
    assert whole(path, max_pixels=10)
    assert list(errors(path)) == ["00011.png"]
    assert not whole(path, max_pixels=10)


def test_with_overwrite_everything_is_done_again(tmp_path: Path) -> None:
    path = tmp_path / "o.parquet"
    whole(path)

    output = opened(path, overwrite=True)

    assert isinstance(output, PredictionsWriter)
    with closing(output):
        assert len(list(output.missing(ALL))) == len(ALL)


def test_a_run_that_ends_while_it_is_waited_for_leaves_nothing_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchcls.storage.locked_folder._PATIENCE_S", PATIENCE_S)  # a busy machine ends processes late
    path = tmp_path / "o.parquet"
    ending = """if True:
        import sys, time
        from contextlib import closing
        from pathlib import Path
        from tests.inference.test_again import ALL, classified, finish, opened
        with closing(opened(Path(sys.argv[1]))) as output:
            print(flush=True)
            time.sleep(1)
            classified(output, ALL, (), 100)
            finish(output)
    """
    with subprocess.Popen([sys.executable, "-c", ending, path], cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()

        assert isinstance(opened(path), ExistingOutput)

    assert process.returncode == 0
    assert list(tmp_path.iterdir()) == [path]


session = st.tuples(
    st.integers(2, 12),
    st.sets(st.integers(0, 11), max_size=4),
    st.none() | st.lists(st.integers(0, 4), max_size=3),
)


@given(sessions=st.lists(session, max_size=6))
def test_however_often_a_run_was_cut_and_its_limits_changed_it_ends_in_the_file_of_an_undisturbed_one(
    sessions: list[tuple[int, set[int], list[int] | None]],
) -> None:
    with TemporaryDirectory() as folder:
        path, expected = Path(folder) / "o.parquet", Path(folder) / "expected.parquet"
        whole(expected)
        for max_pixels, dead, cuts in sessions:
            if cuts is None:
                whole(path, max_pixels, dead)
                assert errors(path).keys() <= {slide.path for slide in ALL}
                continue
            output = opened(path, max_pixels)
            if isinstance(output, ExistingOutput):
                continue
            with closing(output):
                missing = list(output.missing(ALL))
                assert len(missing) + output.resumed_rows == len(ALL)
                for size in cuts:
                    classified(output, missing[:size], dead, max_pixels)
                    output.flush()
                    missing = missing[size:]
        whole(path, 100)
        assert not whole(path, 100)
        assert pq.read_table(path).equals(pq.read_table(expected))
