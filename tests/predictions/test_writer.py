"""Predictions on their way to Parquet: columns, order, resuming, refusals, and what any reader sees."""

import json
import os
import random
import resource
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchcls.engine.postprocess import predictions
from batchcls.errors import OutputError
from batchcls.predictions.writer import PredictionsWriter, open_writer
from batchcls.records import BatchResult, Failure, Slide

LABELS = ("a", "b", "c")
IDENTITY = {"onnx_sha256": "12ab", "decoder": "dali"}
ODD_NAMES = ("a.png", "A.png", "a b.png", "line\nbreak.png", "Zelle-µ.png", "a/b.png", "a\\xff.png", "a\\\\xff.png")
NOT_UTF8 = tuple(os.fsdecode(name) for name in (b"\xff.png", b"\xfe.png", b"a\xff.png", b"a\\\xff.png"))


def opened(path: Path, roots: Sequence[str] = ("slides",), **changed: Any) -> PredictionsWriter:
    output = open_writer(path, **{"roots": roots, "labels": LABELS, "identity": IDENTITY, **changed})
    assert isinstance(output, PredictionsWriter)
    return output


def slides(count: int, root: str = "slides") -> list[Slide]:
    return [Slide(root, f"{number:05d}.png") for number in range(count)]


def write(output: PredictionsWriter, chosen: Sequence[Slide]) -> None:
    """One row each: what it says follows from its name, and about every fourth is a failure."""
    seeds = {slide: sum(map(ord, slide.file)) for slide in chosen}
    decoded = [slide for slide in chosen if seeds[slide] % 4]
    logits = [np.random.default_rng(seeds[slide]).normal(0, 3, 3) for slide in decoded]
    failures = [
        Failure(slide, "corrupt", "it ends early: no end mark", 640, 480)
        if seeds[slide] % 8
        else Failure(slide, "empty", "it has no bytes")
        for slide in chosen
        if slide not in decoded
    ]
    sizes = [(seeds[slide], 48) for slide in decoded]
    output.write(BatchResult(decoded, sizes, predictions(np.array(logits, np.float32).reshape(-1, 3)), failures))


def written(path: Path, chosen: Sequence[Slide], roots: Sequence[str] = ("slides",), **metadata: Any) -> pa.Table:
    with closing(opened(path, roots)) as output:
        write(output, chosen)
        output.finish(metadata)
    return pq.read_table(path)


@contextmanager
def disk_full(after_bytes: int) -> Iterator[None]:
    """No file may grow larger; what is done with it must say so."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (after_bytes, hard))
    try:
        with pytest.raises(OutputError, match=r"every finished part is kept there.*run the same command again"):
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_the_columns_have_the_documented_names_and_types(tmp_path: Path) -> None:
    written(tmp_path / "o.parquet", slides(9))

    assert pq.read_schema(tmp_path / "o.parquet").remove_metadata() == pa.schema(
        {
            "root": pa.dictionary(pa.int32(), pa.string()),
            "path": pa.string(),
            "label": pa.dictionary(pa.int32(), pa.string()),
            "probability": pa.float32(),
            "probabilities": pa.list_(pa.float32(), 3),
            "width": pa.int32(),
            "height": pa.int32(),
            "size_bytes": pa.int64(),
            "modified": pa.timestamp("us", "UTC"),
            "error": pa.string(),
        }
    )
    columns = pq.ParquetFile(tmp_path / "o.parquet").metadata.row_group(0)
    assert {columns.column(number).compression for number in range(columns.num_columns)} == {"ZSTD"}


def test_label_and_probabilities_are_null_exactly_where_there_is_an_error(tmp_path: Path) -> None:
    rows = written(tmp_path / "o.parquet", slides(40)).to_pylist()

    failed = [row for row in rows if row["error"] is not None]
    assert {row["error"] for row in failed} == {"empty: it has no bytes", "corrupt: it ends early: no end mark"}
    assert {(row["label"], row["probability"], row["probabilities"]) for row in failed} == {(None, None, None)}
    assert {(row["width"], row["height"]) for row in failed} == {(640, 480), (None, None)}
    for row in (row for row in rows if row["error"] is None):
        assert row["probability"] == max(row["probabilities"])
        assert row["label"] == LABELS[row["probabilities"].index(row["probability"])]
        assert sum(row["probabilities"]) == pytest.approx(1, abs=1e-6)


def test_a_slide_has_its_size_and_time_where_they_are_known(tmp_path: Path) -> None:
    first = datetime(2026, 11, 26, 4, 5, 6, 789012, tzinfo=UTC)
    known = Slide("slides", "a.png", 12 << 40, int(first.timestamp()) * 10**9 + 789_012_345)
    failed = Failure(Slide("slides", "b.png", 0, -1), "empty", "it has no bytes")
    unknown = Failure(Slide("slides", "c.png"), "missing", "it is gone")
    answers = predictions(np.zeros((1, 3), np.float32))
    with closing(opened(tmp_path / "o.parquet")) as output:
        output.write(BatchResult([known], [(64, 48)], answers, [failed, unknown]))
        output.finish({})

    rows = pq.read_table(tmp_path / "o.parquet").select(["path", "size_bytes", "modified"]).to_pylist()

    assert rows == [
        {"path": "a.png", "size_bytes": 12 << 40, "modified": first},
        {"path": "b.png", "size_bytes": 0, "modified": datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)},
        {"path": "c.png", "size_bytes": None, "modified": None},
    ]


def with_pandas(path: Path) -> list[dict[str, Any]]:
    frame = pd.read_parquet(path)
    return frame.astype(object).where(frame.notna(), None).to_dict("records")


def with_polars(path: Path) -> list[dict[str, Any]]:
    return pl.read_parquet(path).to_dicts()


def with_duckdb(path: Path) -> list[dict[str, Any]]:
    found = duckdb.read_parquet(str(path))
    return [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]


@pytest.mark.parametrize("read", [with_pandas, with_polars, with_duckdb])
def test_other_readers_see_the_same_rows_without_a_cast(
    tmp_path: Path, read: Callable[[Path], list[dict[str, Any]]]
) -> None:
    expected = written(tmp_path / "o.parquet", slides(40)).to_pylist()

    rows = read(tmp_path / "o.parquet")

    for row in rows:
        row["probabilities"] = row["probabilities"] if row["probabilities"] is None else list(row["probabilities"])
    assert rows == expected
    assert {type(row["label"]) for row in rows} == {str, type(None)}
    assert {len(row["probabilities"]) for row in rows if row["error"] is None} == {3}


def test_labels_can_be_counted_in_sql(tmp_path: Path) -> None:
    path = tmp_path / "o.parquet"
    expected = Counter(written(path, slides(40))["label"].to_pylist())

    counted = duckdb.execute("select label, count(*) from read_parquet(?) group by label", [str(path)])

    assert dict(counted.fetchall()) == expected


def test_rows_stand_in_the_order_of_roots_and_then_of_path(tmp_path: Path) -> None:
    roots = ("z", "a", "m")
    chosen = [Slide(root, name) for root in roots for name in ODD_NAMES]
    random.Random(3).shuffle(chosen)

    table = written(tmp_path / "o.parquet", chosen, roots)

    paths = sorted(set(table["path"].to_pylist()))
    assert list(zip(table["root"].to_pylist(), table["path"].to_pylist(), strict=True)) == [
        (root, path) for root in roots for path in paths
    ]


def test_the_metadata_comes_back_as_json(tmp_path: Path) -> None:
    metadata = {"labels": ["é", os.fsdecode(b"\xff")], "counts": {"rows": 3}, "ended": None}

    written(tmp_path / "o.parquet", slides(3), **metadata)

    said = json.loads(pq.read_schema(tmp_path / "o.parquet").metadata[b"batchcls"])
    assert said == {**metadata, "identity": IDENTITY, "limits": {}}


@settings(max_examples=40)
@given(
    sessions=st.lists(
        st.tuples(st.lists(st.integers(0, 5), max_size=4), st.integers(0, 3)),
        max_size=5,
    ),
    seed=st.integers(0, 9),
)
def test_however_a_run_was_cut_the_file_is_the_same(sessions: list[tuple[list[int], int]], seed: int) -> None:
    roots = ("second", "first")
    everything = [Slide(root, name) for root in roots for name in ODD_NAMES + NOT_UTF8]
    random.Random(seed).shuffle(everything)
    with TemporaryDirectory() as folder:
        whole, cut = Path(folder) / "whole.parquet", Path(folder) / "cut.parquet"
        written(whole, everything, roots)
        kept: set[Slide] = set()
        for sizes, lost in sessions:
            with closing(opened(cut, roots)) as output:
                assert output.resumed_rows == len(kept)
                missing = list(output.missing(everything))
                assert missing == [slide for slide in everything if slide not in kept]
                for size in sizes:
                    write(output, missing[:size])
                    output.flush()
                    kept.update(missing[:size])
                    missing = missing[size:]
                write(output, missing[:lost])  # never flushed, as when the process is killed
        with closing(opened(cut, roots)) as output:
            write(output, list(output.missing(everything)))
            output.finish({})
        assert cut.read_bytes() == whole.read_bytes()


name_piece = st.sampled_from([b"\xff", b"\xc3", b"\xa9", b"\\", b"\\xff", b"\\\\", b"x", b"f", b"a", b"/b", b"\n"])


@settings(max_examples=30)
@given(names=st.sets(st.lists(name_piece, min_size=1, max_size=6).map(b"".join), min_size=1, max_size=30))
def test_no_two_names_become_one_row(names: set[bytes]) -> None:
    chosen = [Slide("slides", os.fsdecode(name)) for name in names]
    with TemporaryDirectory() as folder:
        rows = written(Path(folder) / "o.parquet", chosen)
    assert len(set(rows["path"].to_pylist())) == len(names)


def test_the_output_may_have_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff.parquet")
    with closing(opened(path)) as output:
        write(output, slides(3))
        output.flush()
    with closing(opened(path)) as output:
        write(output, list(output.missing(slides(6))))
        output.finish({})

    assert len(pq.read_table(pa.BufferReader(path.read_bytes()))) == 6


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"onnx_sha256": "ffff", "decoder": "dali"}, "onnx_sha256 '12ab', this run has onnx_sha256 'ffff'"),
        ({"onnx_sha256": "12ab"}, "decoder 'dali', this run has decoder None"),
        ({**IDENTITY, "max_pixels": 5}, "max_pixels None, this run has max_pixels 5"),
    ],
)
def test_another_identity_is_refused_with_the_way_out(tmp_path: Path, changed: dict[str, Any], named: str) -> None:
    path = tmp_path / "my o.parquet"
    with closing(opened(path)) as output:
        write(output, slides(3))
        output.flush()

    with pytest.raises(OutputError) as refusal:
        opened(path, identity=changed)

    assert named in str(refusal.value)
    assert f"rm -r '{path}.partial'" in str(refusal.value)
    with closing(opened(path)) as output:
        assert output.resumed_rows == 3


def test_an_existing_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "o.parquet"
    path.write_text("old")

    with pytest.raises(OutputError, match="--overwrite"):
        opened(path)
    assert [path] == list(tmp_path.iterdir())
    with closing(opened(path, overwrite=True)) as output:
        write(output, slides(3))
        output.flush()
        assert path.read_text() == "old"
        output.finish({})

    assert len(pq.read_table(path)) == 3
    assert [path] == list(tmp_path.iterdir())


def test_a_full_disk_costs_no_finished_part(tmp_path: Path) -> None:
    path = tmp_path / "o.parquet"
    everything = slides(600)
    written(tmp_path / "expected.parquet", everything)
    expected = (tmp_path / "expected.parquet").read_bytes()
    with closing(opened(path)) as output:
        write(output, everything[:20])
        output.flush()
        write(output, everything[20:])
        with disk_full(len(expected) // 2):
            output.flush()

    with closing(opened(path)) as output:
        assert output.resumed_rows == 20
        write(output, list(output.missing(everything)))
        output.flush()
        with disk_full(len(expected) // 2):
            output.finish({})
    assert not path.exists()

    with closing(opened(path)) as output:
        assert list(output.missing(everything)) == []
        output.finish({})
    assert path.read_bytes() == expected
