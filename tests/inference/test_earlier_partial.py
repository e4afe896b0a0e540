"""A run that an earlier version began: this version goes on with it."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from batchcls.engine.manifest import MANIFEST
from tests.commandline import finished
from tests.conftest import ALL4, draw

PARTIAL = Path(__file__).with_name("earlier_partial")
"""The partial folder that commit 6fe9a37 left of a run over 12 PNGs, an empty JPEG and ``large.png``, which had needed
more memory than there was."""


def test_a_run_that_an_earlier_version_began_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    slides = [draw(Path("slides") / f"{number:02}.png") for number in range(12)] + [draw(Path("slides/large.png"))]
    Path("slides/empty.jpg").touch()
    shutil.copytree(PARTIAL, "o.parquet.partial")
    Path("o.parquet.partial").chmod(0o700)
    engine = Path("all4-googlenet")  # as it was then: without novelty
    shutil.copytree(ALL4, engine)
    manifest = json.loads((engine / MANIFEST).read_text())
    (engine / MANIFEST).write_text(json.dumps({**manifest, "novelty": None}))
    begun = Path("o.parquet.partial/run.json")
    begun.write_text(begun.read_text().replace("ONNX_SHA256", manifest["onnx_sha256"]))

    run = finished("slides", "--out", "o.parquet", "--engine", engine, "--backend", "null", "--device", "cpu")

    assert "resumed   13 of the rows were done before" in run.stdout
    rows = pq.read_table("o.parquet").to_pylist()
    assert [row["path"] for row in rows] == sorted([*(slide.name for slide in slides), "empty.jpg"])
    assert [row["error"] for row in rows if row["error"]] == ["empty: it has no bytes"]
    assert not Path("o.parquet.partial").exists()
