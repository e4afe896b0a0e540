"""A small table that unfolds to gigabytes is refused before they are taken; a sound one of any size passes."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from batchcls.cli import main
from batchcls.errors import LabelsError
from batchcls.images.labels.table import read_label_table
from batchcls.predictions.reader import PredictionsFile
from batchcls.predictions.schema import file_schema
from batchcls.records import METADATA_KEY
from batchcls.storage.table_memory import check_parquet_size
from tests.conftest import ROOT, draw
from tests.evaluation.test_report import write_random_predictions

LABELS = ["a", "b", "c"]
PEAK = """
import sys
from batchcls.cli import main
try:
    main(sys.argv[1:])
finally:
    print([line for line in open("/proc/self/status") if line.startswith("VmHWM")])
"""


def same(value: str, rows: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), [value])


def written(out: Path, rows: int, groups: int = 1, options: dict[str, Any] | None = None, **changed: Any) -> Path:
    """A predictions file of ``groups`` times the same rows."""
    columns = {
        "root": same("/slides", rows),
        "path": same("a.png", rows),
        "label": same("a", rows),
        "probability": pa.nulls(rows, pa.float32()),
        "probabilities": pa.nulls(rows, pa.list_(pa.float32(), 3)),
        "width": pa.nulls(rows, pa.int32()),
        "height": pa.nulls(rows, pa.int32()),
        "error": pa.nulls(rows, pa.string()),
    }
    others = {field.name: pa.nulls(rows, field.type) for field in file_schema(3) if field.name not in columns}
    table = pa.table(columns | others | changed).replace_schema_metadata({METADATA_KEY: json.dumps({"labels": LABELS})})
    with pq.ParquetWriter(out, table.schema, **{"compression": "zstd", **(options or {})}) as writer:
        for _ in range(groups):
            writer.write_table(table, row_group_size=rows)
    return out


def one_long_name(out: Path, **options: Any) -> Path:
    """6 GB of text, which a dictionary holds once."""
    return written(out, 100_000, path=same("x" * 60_000, 100_000), options=options)


def many_long_names(out: Path, **options: Any) -> Path:
    """2 GB of text, which compresses well."""
    names = pa.array([f"{number:09}" + "y" * 1_000_000 for number in range(500)] * 1)
    return written(out, 500, groups=4, path=names, options={"use_dictionary": False, **options})


def many_rows(out: Path, **options: Any) -> Path:
    """A hundred million rows in which nothing stands."""
    return written(out, 5_000_000, groups=20, options=options)


BOMBS = [one_long_name, many_long_names, many_rows]


@pytest.fixture(scope="module", params=BOMBS, ids=lambda bomb: bomb.__name__)
def bomb(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    make: Callable[[Path], Path] = request.param
    return make(tmp_path_factory.mktemp("bombs") / "o.parquet")


def test_a_parquet_that_unfolds_to_gigabytes_is_refused_by_every_command(bomb: Path, tmp_path: Path) -> None:
    draw(tmp_path / "s" / "a" / "0.png")
    commands = [
        ["report", bomb, "--out", tmp_path / "o.html"],
        ["evaluate", bomb, "--truth", tmp_path / "s", "--out", tmp_path / "e"],
        ["evaluate", write_random_predictions(tmp_path / "p.parquet", 9), "--truth", bomb, "--out", tmp_path / "e"],
        ["train", bomb, "--out", tmp_path / "m.safetensors", "--device", "cpu"],
    ]

    assert bomb.stat().st_size < 6_000_000
    for arguments in commands:
        done = CliRunner().invoke(main, list(map(str, arguments)))
        assert (done.exit_code, len(done.stderr.splitlines())) == (1, 1), done.output
        assert re.search(r"has [\d,]+ bytes and unfolds to more than [\d,]+, which no sound file does", done.stderr)


def test_it_is_refused_before_memory_is_taken(bomb: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PEAK, "report", bomb, "--out", tmp_path / "o.html"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert int(re.findall(r"VmHWM:\s+(\d+) kB", done.stdout.replace("\\t", " "))[0]) < 600 << 10


def test_a_column_that_nobody_asks_for_takes_no_memory(tmp_path: Path) -> None:
    notes = pa.ListArray.from_arrays(pa.array([0, 50_000_000], pa.int32()), pa.nulls(50_000_000, pa.int64()))
    source = written(tmp_path / "o.parquet", 1, groups=8, label=same("a", 1), notes=notes)
    (tmp_path / "t.csv").write_text("path,label\na.png,a\n")

    done = subprocess.run(
        [sys.executable, "-c", PEAK, "evaluate", source, "--truth", tmp_path / "t.csv", "--out", tmp_path / "e"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert int(re.findall(r"VmHWM:\s+(\d+) kB", done.stdout.replace("\\t", " "))[0]) < 1 << 20, done.stderr


@pytest.mark.parametrize("command", ["report", "evaluate"])
def test_two_columns_of_one_name_are_refused_in_a_line(tmp_path: Path, command: str) -> None:
    table = pq.read_table(write_random_predictions(tmp_path / "p.parquet", 9))
    pq.write_table(table.append_column(table.schema.field("label"), table["label"]), tmp_path / "twice.parquet")
    draw(tmp_path / "s" / "a" / "0.png")
    truth = ["--truth", tmp_path / "s"] if command == "evaluate" else []

    done = CliRunner().invoke(
        main, list(map(str, [command, tmp_path / "twice.parquet", "--out", tmp_path / "e", *truth]))
    )

    assert (done.exit_code, len(done.stderr.splitlines())) == (1, 1), done.output
    assert "it has more than one column 'label'" in done.stderr


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "brotli", "lz4", "zstd"])
def test_it_is_refused_however_it_is_written(tmp_path: Path, compression: str, version: str) -> None:
    bomb = one_long_name(tmp_path / "o.parquet", compression=compression, data_page_version=version)

    with pytest.raises(LabelsError, match="no sound file"):
        list(PredictionsFile.parts(bomb))


def test_a_sound_file_of_a_million_rows_passes(tmp_path: Path) -> None:
    rows = 1_000_000
    names = pa.array([f"case-{number // 500:05}/cell-{number:07}.jpg" for number in range(rows)])
    answers = pa.FixedSizeListArray.from_arrays(pa.array(np.tile(np.float32([1, 0, 0]), rows)), 3)
    sure = pa.array(np.ones(rows, np.float32))
    source = written(tmp_path / "o.parquet", rows, path=names, probabilities=answers, probability=sure)

    assert len(PredictionsFile.read(source).table) == rows
    assert sum(len(part.table) for part in PredictionsFile.parts(source)) == rows


@given(
    rows=st.integers(0, 300),
    group=st.integers(1, 100),
    version=st.sampled_from(["1.0", "2.0"]),
    dictionary=st.booleans(),
    page=st.sampled_from([16, 1000, None]),
)
def test_any_small_sound_table_passes(
    tmp_path_factory: pytest.TempPathFactory, rows: int, group: int, version: str, dictionary: bool, page: int | None
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.parquet"
    table = pa.table(
        {
            "path": [f"{number}.png" for number in range(rows)],
            "label": pa.array(["a", None, "b"] * rows, pa.string())[:rows],
            "n": pa.array(range(rows), pa.decimal128(5)),
            "deep": pa.array([[{"x": [number, None]}, None] for number in range(rows)]),
            "when": pa.array(range(rows), pa.timestamp("ns")),
        }
    )
    pq.write_table(
        table, path, row_group_size=group, data_page_version=version, use_dictionary=dictionary, data_page_size=page
    )

    check_parquet_size(path, whole=True)


@given(changes=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=9)), min_size=1, max_size=4))
def test_a_damaged_file_is_read_whole_or_refused(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[float, bytes]]
) -> None:
    base = tmp_path_factory.getbasetemp()
    sound = base / "sound.parquet"
    if not sound.exists():
        write_random_predictions(sound, 200)
    content = bytearray(sound.read_bytes())
    for place, change in changes:
        at = int(place * (len(content) - len(change)))
        content[at : at + len(change)] = change
    (base / "damaged.parquet").write_bytes(content)

    with suppress(LabelsError):
        assert len(PredictionsFile.read(base / "damaged.parquet").table) == 200


def test_a_footer_that_is_most_of_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "o.parquet"
    with path.open("wb") as stream:
        stream.write(b"PAR1")
        stream.truncate(200 << 20)
        stream.seek((200 << 20) - 8)
        stream.write((199 << 20).to_bytes(4, "little") + b"PAR1")

    with pytest.raises(LabelsError, match="footer of 208,666,624 bytes"):
        PredictionsFile.read(path)


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.txt"])
def test_a_text_of_10_gb_is_refused_unread(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("path,label\n")
    os.truncate(path, 10 << 30)

    with pytest.raises(LabelsError, match=r"is too large for a table of labels: 10,737,418,240 of"):
        read_label_table(path)


def test_json_of_many_keys_and_many_rows_is_refused(tmp_path: Path) -> None:
    keys = ",".join(f'"k{number}":"x"' for number in range(20_000))
    (tmp_path / "t.jsonl").write_text('{"path":"a","label":"b",' + keys + "}\n" + "{}\n" * 40_000)

    with pytest.raises(LabelsError, match=r"unfolds to 40,001 rows of 20,002 columns"):
        read_label_table(tmp_path / "t.jsonl")


@pytest.mark.parametrize(
    "line",
    [
        '{"path": "a", "label": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"path": "a", "label": ' + '{"x":' * 100_000 + "1" + "}" * 100_001,
        '{"path": "a", "label": 1' + "0" * 40 + "}",
        '{"path": "a", "label": 1' + "0" * 5000 + "}",
        '{"path": "a", "path": "b", "label": "c"}',
        '{"path": "\\ud800", "label": "c"}',
        '{"path": "a", "label": 1}\n{"path": "a", "label": "1"}',
        '{"path": "a", "label": [1]}',
        '["path", "label"]',
        '{"path": "a"',
        "path,label",
    ],
    ids=lambda line: line[:40],
)
def test_json_that_is_no_table_is_refused_in_a_line(tmp_path: Path, line: str) -> None:
    (tmp_path / "t.jsonl").write_text(line)

    with pytest.raises(LabelsError, match=r"t\.jsonl' cannot be read as a table of labels: ") as caught:
        read_label_table(tmp_path / "t.jsonl")

    assert "\n" not in str(caught.value)


def test_json_lines_may_lack_keys_and_be_blank(tmp_path: Path) -> None:
    lines = ['\ufeff{"path": "a", "label": "x", "n": 1}', "", '{"label": null, "path": "b"}', '{"path":"c","m":[1]}']
    (tmp_path / "t.jsonl").write_text("\r\n".join(lines), encoding="utf-8")

    table = read_label_table(tmp_path / "t.jsonl")[0]

    assert table["path"].to_pylist() == ["a", "b", "c"]
    assert table["label"].to_pylist() == ["x", None, None]
    assert table["n"].to_pylist() == [1, None, None]
