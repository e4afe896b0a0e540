"""Novelty from end to end: drawn stains in the palette that an engine learned, and in another one."""

import io
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from batchcls import Engine
from batchcls.engine.manifest import MANIFEST, Manifest
from batchcls.engine.novelty_file import NOVELTY
from batchcls.errors import CheckpointError, EngineError, SlidesError
from batchcls.records import METADATA_KEY
from tests.commandline import invoked
from tests.stains import OTHERS, build_stain_engine, draw_stain


def rows_of(slides: Path, engine: Path, out: Path, *options: str) -> pa.Table:
    result = invoked(slides, "--engine", engine, "--out", out, *options)
    assert result.exit_code == 0, result.output
    return pq.read_table(out)


def record_of(table: pa.Table) -> Mapping[str, Any]:
    record: Mapping[str, Any] = json.loads(table.schema.metadata[METADATA_KEY])
    return record


def test_another_palette_is_novel_and_the_learned_one_is_not(tmp_path: Path, stains: Path, stain_engine: Path) -> None:
    own = rows_of(stains / "own", stain_engine, tmp_path / "own.parquet")
    other = rows_of(stains / "other", stain_engine, tmp_path / "other.parquet")

    assert sum(own["novel"].to_pylist()) <= 0.1 * OTHERS
    assert sum(other["novel"].to_pylist()) >= 0.95 * OTHERS
    assert min(own["novelty"].to_pylist()) > 0
    assert max(other["novelty"].to_pylist()) < 1
    assert record_of(other)["novelty"]["novel"] == sum(other["novel"].to_pylist())
    assert record_of(own)["drift"]["note"], "48 images are too few for it, and that is said"


def test_many_novel_images_are_warned_of_even_if_the_run_is_quiet(
    tmp_path: Path, stains: Path, stain_engine: Path
) -> None:
    other = invoked(stains / "other", "--engine", stain_engine, "--out", tmp_path / "o.parquet", "--quiet")
    again = invoked(stains / "other", "--engine", stain_engine, "--out", tmp_path / "o.parquet", "--quiet")
    own = invoked(stains / "own", "--engine", stain_engine, "--out", tmp_path / "own.parquet", "--quiet")

    assert "OF THE IMAGES LOOK UNLIKE" in other.stderr
    assert "OF THE IMAGES LOOK UNLIKE" in again.stderr, "the file that is whole already says so, too"
    assert "LOOK UNLIKE" not in own.stderr


def test_a_run_of_another_palette_drifts_in_color(tmp_path: Path, stains: Path, stain_engine: Path) -> None:
    more = tmp_path / "more"
    for number in range(64):
        draw_stain(more / f"{number}.png", "brown", 500 + number)

    own = record_of(rows_of(stains / "learned", stain_engine, tmp_path / "own.parquet"))["drift"]
    other = record_of(rows_of(more, stain_engine, tmp_path / "other.parquet"))["drift"]

    if own["note"] is None:  # 240 images are fewer than the blocks that a reference of drift needs
        assert "color" not in own["kinds"]
        assert "color" in other["kinds"]
    else:
        assert "too few images" in own["note"]
        assert other["kinds"] == []


def test_what_is_novel_is_the_users_to_say(tmp_path: Path, stains: Path, stain_engine: Path) -> None:
    strict = rows_of(stains / "own", stain_engine, tmp_path / "s.parquet", "--novel-above", "0.6")

    assert strict["novel"].to_pylist() == [value >= 0.6 for value in np.float64(strict["novelty"].to_pylist())]
    assert 0 < sum(strict["novel"].to_pylist()) < OTHERS


def test_a_link_to_an_engine_is_refused_before_anything_is_learned(
    tmp_path: Path, stains: Path, stain_engine: Path
) -> None:
    from batchcls.building.novelty import add_novelty

    (tmp_path / "link").symlink_to(stain_engine)
    (tmp_path / "nothing").mkdir()  # which would be refused as well, if it were read
    with pytest.raises(EngineError, match="is a symbolic link, no engine folder; name a folder itself"):
        add_novelty(tmp_path / "link", tmp_path / "nothing", Console(quiet=True))


def test_a_limit_that_no_image_can_reach_makes_none_familiar(tmp_path: Path, stains: Path, stain_engine: Path) -> None:
    out = tmp_path / "o.parquet"  # 120 images are held back, so that the strangest has a novelty of 120/121
    result = invoked(stains / "other", "--engine", stain_engine, "--out", out, "--novel-above", "0.995")

    assert "unknown: 120 held-back images are too few to call an image novel from 0.995 on" in result.stdout
    assert set(pq.read_table(out)["novel"].to_pylist()) == {None}
    assert record_of(pq.read_table(out))["novelty"]["novel"] is None


def test_pandas_polars_and_duckdb_read_every_added_column(tmp_path: Path, stains: Path, stain_engine: Path) -> None:
    out = tmp_path / "o.parquet"
    table = rows_of(stains / "own", stain_engine, out, "--top", "2", "--embeddings")
    names = ["novelty", "novel", "measures", "top_labels", "top_probabilities", "embedding"]

    frame, polars_frame = pd.read_parquet(out), pl.read_parquet(out)
    for name in names:
        expected = table[name].to_pylist()
        assert [np.ravel(value).tolist() for value in frame[name]] == [np.ravel(value).tolist() for value in expected]
        assert polars_frame[name].to_list() == expected
    longest = duckdb.read_parquet(str(out)).aggregate("max(len(embedding)), max(len(top_labels))").fetchall()
    assert longest == [(128, 2)]


def test_the_best_labels_are_those_of_the_probabilities(tmp_path: Path, stains: Path, stain_engine: Path) -> None:
    for row in rows_of(stains / "own", stain_engine, tmp_path / "o.parquet", "--top", "9").to_pylist():
        ordered = sorted(zip(row["probabilities"], "abc", strict=True), key=lambda pair: -pair[0])
        assert row["top_labels"] == [label for _, label in ordered], "nine of three classes are all three"
        assert row["top_probabilities"] == [probability for probability, _ in ordered]
        assert row["label"] == row["top_labels"][0]


@pytest.mark.parametrize("options", [("--backend", "torch"), ("--backend", "onnxruntime"), ("--precision", "fp32")])
def test_every_backend_finds_the_same_images_novel(
    tmp_path: Path, stains: Path, stain_engine: Path, options: tuple[str, ...]
) -> None:
    for folder in ("own", "other"):
        ours = rows_of(stains / folder, stain_engine, tmp_path / f"a{folder}.parquet")["novel"].to_pylist()
        theirs = rows_of(stains / folder, stain_engine, tmp_path / f"b{folder}.parquet", *options)["novel"].to_pylist()
        assert sum(one != other for one, other in zip(ours, theirs, strict=True)) <= 1


def test_two_processes_and_text_files_hold_the_same(tmp_path: Path, stains: Path, stain_engine: Path) -> None:
    options = ("--top", "2", "--precision", "fp32")
    expected = rows_of(stains / "own", stain_engine, tmp_path / "o.parquet", *options)
    two = rows_of(stains / "own", stain_engine, tmp_path / "p.parquet", *options, "--processes", "2")
    lines, cells = tmp_path / "o.jsonl", tmp_path / "o.csv"
    for out in (lines, cells):
        assert invoked(stains / "own", "--engine", stain_engine, "--out", out, *options).exit_code == 0

    assert two.equals(expected)
    for name in ("novelty", "novel", "measures", "top_labels"):
        values = expected[name].to_pylist()
        assert _close(pl.read_ndjson(lines)[name].to_list(), values)
        in_cells = pd.read_csv(cells)[name].tolist()
        assert _close([json.loads(cell) if isinstance(cell, str) else cell for cell in in_cells], values)


def _close(found: Sequence[Any], expected: Sequence[Any]) -> bool:
    """Whether texts and truth values are equal, and numbers nearly so."""
    pairs = zip(np.ravel(found), np.ravel(expected), strict=True)
    return all(one == other or float(one) == pytest.approx(float(other), rel=1e-6) for one, other in pairs)


def test_programs_get_the_command_lines_values(tmp_path: Path, stains: Path, stain_engine: Path) -> None:
    expected = rows_of(stains / "own", stain_engine, tmp_path / "o.parquet", "--embeddings")
    with Engine(stain_engine, device="cpu", embeddings=True) as engine:
        table = engine.predict(stains / "own")
        batch = engine({"path": [str(stains / "other" / "0.png"), str(stains / "gone.png")]})

    for name in ("novelty", "novel", "measures", "embedding"):
        assert table[name].to_pylist() == expected[name].to_pylist()
    assert batch["novel"].tolist() == [True, None]
    assert batch["embedding"].shape == (2, 128)
    assert np.isnan(batch["novelty"][1])


def test_an_unreadable_file_has_no_novelty(tmp_path: Path, stain_engine: Path) -> None:
    draw_stain(tmp_path / "slides" / "a.png", "violet", 1)
    (tmp_path / "slides" / "b.png").write_bytes(b"no image")

    first, second = rows_of(tmp_path / "slides", stain_engine, tmp_path / "o.parquet", "--embeddings").to_pylist()

    assert first["novelty"] is not None
    assert second["error"] is not None
    assert [second[name] for name in ("novelty", "novel", "measures", "embedding")] == [None] * 4


def test_an_engine_without_novelty_writes_the_columns_of_before(tmp_path: Path, tiny_engine: Path) -> None:
    draw_stain(tmp_path / "slides" / "a.png", "violet", 1)
    table = rows_of(tmp_path / "slides", tiny_engine, tmp_path / "o.parquet")

    assert "novelty" not in table.column_names
    assert "novelty" not in record_of(table)
    refused = invoked(tmp_path, "--engine", tiny_engine, "--out", tmp_path / "e.parquet", "--embeddings")
    assert refused.exit_code == 1
    assert "has no output for them" in refused.stderr


def test_an_engine_that_exists_is_taught(tmp_path: Path, stains: Path, stain_checkpoint: Path, quiet: Console) -> None:
    from batchcls.building.novelty import add_novelty

    engine = build_stain_engine(stain_checkpoint, tmp_path / "e", quiet, None)
    (engine / "README.md").write_text("mine")
    before = Manifest.read(engine)
    after = add_novelty(engine, stains / "learned", quiet)

    assert before.novelty is None
    assert after.onnx_sha256 == before.onnx_sha256
    assert (engine / "README.md").read_text() == "mine"
    assert sum(rows_of(stains / "other", engine, tmp_path / "o.parquet")["novel"].to_pylist()) >= 0.95 * OTHERS


def test_too_few_images_are_said_and_nothing_is_made_up(
    tmp_path: Path, stains: Path, stain_checkpoint: Path, quiet: Console
) -> None:
    few, fewer = tmp_path / "few", tmp_path / "fewer"
    for folder, count in ((few, 60), (fewer, 20)):
        for number in range(count):
            draw_stain(folder / f"{number}.png", "violet", number)

    shown = Console(file=io.StringIO(), width=200)
    engine = build_stain_engine(stain_checkpoint, tmp_path / "e", shown, few)
    assert "60 images are too few to tell the drift of a run" in shown.file.getvalue()  # type: ignore[attr-defined]
    table = rows_of(stains / "other", engine, tmp_path / "o.parquet")
    assert table["novelty"].null_count == 0
    assert table["novel"].null_count == OTHERS
    assert record_of(table)["novelty"]["novel"] is None
    with pytest.raises(SlidesError, match="40"):
        build_stain_engine(stain_checkpoint, tmp_path / "none", quiet, fewer)
    assert not (tmp_path / "none").exists()


def test_a_network_without_a_convolution_is_refused_in_one_line(
    tmp_path: Path, stains: Path, tiny_onnx: Path, quiet: Console
) -> None:
    from batchcls.building.build import BuildOptions, build_engine

    options = BuildOptions(values={"labels": ("a", "b", "c")}, novelty_images=stains / "learned")
    with pytest.raises(CheckpointError, match="leave --novelty-from out"):
        build_engine(tiny_onnx, tmp_path / "e", options, quiet)


@pytest.mark.parametrize("damage", ["cut", "other", "missing", "header"])
def test_damaged_statistics_are_refused_in_one_line(tmp_path: Path, stain_engine: Path, damage: str) -> None:
    engine = tmp_path / "e"
    shutil.copytree(stain_engine, engine)
    content = (engine / NOVELTY).read_bytes()
    if damage == "cut":
        (engine / NOVELTY).write_bytes(content[:-4])
    elif damage == "other":
        (engine / NOVELTY).write_bytes(content[:-4] + bytes(4))
    elif damage == "missing":
        (engine / NOVELTY).unlink()
    else:
        values = json.loads((engine / MANIFEST).read_text())
        values["novelty"]["statistics"]["groups"] = [["color", 0, 10**9, 10**9]]
        (engine / MANIFEST).write_text(json.dumps(values))

    result = invoked(tmp_path, "--engine", engine, "--out", tmp_path / "o.parquet")
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert "--novelty-from" in result.stderr
    with pytest.raises(EngineError, match="--novelty-from"):
        Engine(engine, device="cpu")
