"""A few hundred of the cases of ``python -m tests.faults.fuzz``, and what an hour of them once found."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchcls.errors import LabelsError
from batchcls.labelled import Labelled
from batchcls.predicted import Predicted
from batchcls.provenance import NOT_RECORDED, throughput
from tests.commandline import PATIENCE_S
from tests.conftest import ROOT
from tests.test_report import write

CASES = 30


def test_nothing_that_reads_a_file_fails_otherwise_than_in_a_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.faults.fuzz", "--cases", str(CASES), "--seed", "1", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    counts = [int(line.split()[-6]) for line in done.stdout.splitlines() if line.endswith("0") and " s " in line]
    assert len(counts) > 15
    assert set(counts) == {CASES}


def test_strings_of_a_parquet_file_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.parquet"
    broken = pa.array([b"a/1.png", b"a\xff2.png"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"path": broken, "label": ["a", "b"]}), path)
    with pytest.raises(LabelsError, match=r"labels\.parquet"):
        Labelled.read(path, "^(.)")


@pytest.mark.parametrize("figure", [10**400, -(2**70), 1e308])
def test_figures_beyond_all_runs_are_not_shown(figure: float) -> None:
    shown = throughput({"throughput": {"files": 3, "peak_memory_bytes": figure, "seconds": {"read": figure}}})
    assert (shown["files"], shown["memory"], shown["stages"]) == ("3", NOT_RECORDED, [])


def test_halves_of_characters_in_the_metadata_are_shown_as_question_marks(tmp_path: Path) -> None:
    says = json.loads('{"decoder": "\\ud800"}')
    path = write(tmp_path / "rows.parquet", ["a.png"], np.zeros((1, 3)), [False], says=says)
    assert Predicted.read(path).metadata["decoder"] == "?"
