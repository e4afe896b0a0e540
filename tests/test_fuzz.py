"""A few hundred of the cases of ``python -m tests.faults.fuzz``, and what an hour of them once found."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchcls.building.onnx.classifier import load_classifier
from batchcls.errors import CheckpointError, LabelsError
from batchcls.evaluation.provenance import NOT_RECORDED, describe_throughput
from batchcls.images.formats.inspection import examine
from batchcls.images.formats.jpeg_markers import jpeg_header
from batchcls.images.formats.refusal import RefusedError
from batchcls.images.labels.labeled_images import LabeledImages
from batchcls.networks.unpickling_stand_ins import DtypeStandIn
from batchcls.predictions.reader import PredictionsFile
from tests.commandline import PATIENCE_S
from tests.conftest import ROOT
from tests.evaluation.test_report import write_predictions
from tests.faults.targets import _networks

CASES = 20


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
        LabeledImages.read(path, "^(.)")


def test_a_jpeg_that_ends_in_its_frame_is_one_row() -> None:
    cut = b"\xff\xd8\xff\xc0\x00\x0b"
    assert jpeg_header(cut).plain is False
    with pytest.raises(RefusedError, match="cannot be read as such"):
        examine("image.jpg", cut, 1_000_000)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("\r\r\rnull\r\n{}\n", "no object"),
        ("[1]\n", "no object"),
        ('{"path": 1}\n{"path": "a"}\n', "a table of labels"),
        ('{"path": "\\ud800"}\n', "a table of labels"),
        ("[" * 100_000, "a table of labels"),
        ("{", "a table of labels"),
    ],
)
def test_json_lines_that_are_none_are_refused(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text(text)
    with pytest.raises(LabelsError, match=told):
        LabeledImages.read(path)


def test_json_lines_may_lack_a_key_and_begin_with_a_mark(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    rows = [
        {"path": f"{number}.png", "label": number % 2, **({"group": "g"} if number else {})} for number in range(20_001)
    ]
    path.write_text("\ufeff" + "\r\n".join(map(json.dumps, [*rows[1:], {**rows[0], "group": "h"}])) + "\n\n")
    table = LabeledImages.read(path).table
    assert table["label"].to_pylist()[:2] == ["1", "0"]
    assert table["group"].to_pylist()[-2:] == ["g", "h"]


def test_text_of_numpy_beyond_unicode_is_left_out() -> None:
    kind = DtypeStandIn("U1")
    kind.__setstate__((3, "<", None))
    assert kind.values(b"\xff\xff\xff\x7f") == []


def test_names_in_an_onnx_file_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "tiny.onnx").write_bytes(_networks(tmp_path)[0].replace(b"scores", b"s\xff\xferes"))
    with pytest.raises(CheckpointError, match=r"tiny\.onnx"):
        load_classifier(tmp_path / "tiny.onnx")


def test_an_onnx_file_whose_nodes_or_types_are_incomplete_is_refused(tmp_path: Path) -> None:
    model = onnx.load_from_string(_networks(tmp_path)[0])
    constant = onnx.helper.make_node("Constant", [], ["one"], value_int=1)
    model.graph.node.insert(0, constant)
    del constant.output[:]
    model.graph.node[0].CopyFrom(constant)
    onnx.save(model, tmp_path / "no_output.onnx")
    del model.graph.node[0]
    model.graph.output[0].type.tensor_type.elem_type = 97
    onnx.save(model, tmp_path / "no_type.onnx")

    for name in ("no_output.onnx", "no_type.onnx"):
        with pytest.raises(CheckpointError, match=name):
            load_classifier(tmp_path / name)


@pytest.mark.parametrize("figure", [10**400, -(2**70), 1e308])
def test_figures_beyond_all_runs_are_not_shown(figure: float) -> None:
    words = describe_throughput({"throughput": {"files": 3, "peak_memory_bytes": figure, "seconds": {"read": figure}}})
    assert (words.files, words.memory, words.stages) == ("3", NOT_RECORDED, ())


def test_halves_of_characters_in_the_metadata_are_shown_as_question_marks(tmp_path: Path) -> None:
    says = json.loads('{"decoder": "\\ud800"}')
    path = write_predictions(tmp_path / "rows.parquet", ["a.png"], np.zeros((1, 3)), [False], says=says)
    assert PredictionsFile.read(path).metadata["decoder"] == "?"
