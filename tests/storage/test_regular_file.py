"""Recipes, labels, manifests, sidecars and tables that are no such thing: a line each, from every command."""

import json
import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from batchcls.cli import main
from batchcls.engine.manifest import MANIFEST, Manifest
from batchcls.engine.plan_sidecar import Sidecar
from batchcls.errors import BatchclsError
from batchcls.networks.label_files import read_labels
from batchcls.networks.recipe import Recipe
from batchcls.storage.regular_file import read_json, read_text
from tests.conftest import draw

pytestmark = pytest.mark.timeout(600)

KINDS = ["fifo", "device", "folder", "sparse", "deep", "binary", "nothing"]
RECIPES = {
    "dotted": "a." * 30_000 + "a = 1",
    "infinite": "temperature = inf",
    "no number": "temperature = nan",
    "huge": "size_px = " + "9" * 5000,
    "beyond": "temperature = 1e400",
    "twice": "precision = 'fp16'\nprecision = 'fp32'",
}
_LEVELS = [("a", "b"), ("b", "c"), ("c", "d"), ("d", "e"), ("e", "f"), ("f", "g"), ("g", "h"), ("h", "i")]
LABELS = {
    "aliases.yaml": "a: &a [x, x, x]\n" + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in _LEVELS),
    "keys.yaml": "? &a [x, x]\n: 1\n" + "".join(f"? &{b} [{', '.join([f'*{a}'] * 9)}]\n: 1\n" for a, b in _LEVELS),
    "twice.json": '{"0": "a", "0": "b"}',
    "no-number.json": '{"a": NaN, "b": 1e400}',
    "deep.json": "[" * 100_000,
    "deep.yaml": "[" * 100_000,
}


def hostile(path: Path, kind: str) -> Path:
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
        case "sparse":
            with path.open("wb") as stream:
                stream.truncate(10 << 30)
        case "deep":
            path.write_text('{"a":' * 100_000)
        case "binary":
            path.write_bytes(bytes(range(256)) * 10)
        case "nothing":
            path.touch()
    return path


def refused(*arguments: str | Path) -> str:
    """What a command says that is refused in a line."""
    result = CliRunner().invoke(main, [*map(str, arguments)])
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code in (1, 2), result.output
    return result.output


@pytest.mark.parametrize("kind", KINDS)
def test_no_command_waits_for_it(tiny_onnx: Path, tiny_engine: Path, tmp_path: Path, kind: str) -> None:
    slides = draw(tmp_path / "slides" / "0.png").parent
    out = tmp_path / "out"
    path = hostile(tmp_path / "hostile.yaml", kind)
    if kind != "nothing":  # an empty recipe is one
        assert "hostile.yaml" in refused("build", tiny_onnx, "--out", out, "--labels", "a,b,c", "--recipe", path)
        data = tmp_path / "x.safetensors"
        assert "hostile.yaml" in refused("train", slides, "--out", data, "--recipe", path)
    assert "hostile.yaml" in refused("build", tiny_onnx, "--out", out, "--labels", path)
    assert "hostile.yaml" in refused("report", path, "--out", tmp_path / "report.html")
    assert "hostile.yaml" in refused("evaluate", path, "--truth", slides, "--out", out)
    assert "hostile.yaml" in refused("build", path, "--out", out)
    for name in ("labels.csv", "labels.parquet", "labels.jsonl"):
        if kind != "folder":
            table = hostile(tmp_path / name, kind)
            assert name in refused("train", table, "--out", tmp_path / "x.safetensors")
    for name in ("a.onnx", "a.pth", "a.safetensors"):
        model = hostile(tmp_path / name, kind)
        assert name in refused("build", model, "--out", out, "--labels", "a,b,c")
        assert name in refused("explain", model, slides, "--out", out)
    engine = tmp_path / "engine"
    shutil.copytree(tiny_engine, engine, ignore=shutil.ignore_patterns(MANIFEST))
    hostile(engine / MANIFEST, kind)
    assert MANIFEST in refused("info", engine)
    assert MANIFEST in refused("run", slides, "--engine", engine, "--out", tmp_path / "rows.parquet")
    assert not out.exists()


@pytest.mark.parametrize("kind", RECIPES)
def test_a_recipe_that_is_a_bomb_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPES[kind])
    with pytest.raises(BatchclsError):
        Recipe.compose(path, {})


def test_a_recipe_of_many_labels_is_read(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    labels = [f"E. coli, strain {number}" for number in range(5000)]
    path.write_text("labels = " + json.dumps(labels, indent=0))
    assert Recipe.compose(path, {}).labels == tuple(labels)


@pytest.mark.parametrize("name", LABELS)
def test_labels_that_are_a_bomb_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(LABELS[name])
    with pytest.raises(BatchclsError, match="labels file"):
        read_labels(path)


@pytest.mark.parametrize("text", ["a" + "\t" * 500_000 + "b", "a" + " " * 500_000 + "1x", "1" + "\t" * 500_000 + "a:"])
def test_a_line_of_labels_takes_no_longer_for_its_blanks(tmp_path: Path, text: str) -> None:
    path = tmp_path / "labels.txt"
    path.write_text(f"{text}\nb")
    assert len(read_labels(path)) == 2


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("wide.json", json.dumps([{f"a{number}": 0 for number in range(40_000)}] + [{}] * 100_000)),
        ("wide.csv", "\n".join([",".join(f"a{number}" for number in range(80_000)), ",".join("0" * 80_000)])),
        ("same.csv", "label," + "a," * 100_000 + "a\n"),
    ],
)
def test_a_table_of_labels_of_very_many_columns_is_refused_in_a_line(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(BatchclsError) as refusal:
        read_labels(path)
    assert len(str(refusal.value)) < 1500


@pytest.mark.parametrize(
    "text", ['{"a": 1, "a": 2}', '{"a": NaN}', "[Infinity]", "[1e400]", '["\\ud800"]', "[" * 100_000, "[1", ""]
)
def test_json_that_says_two_things_or_no_number_is_refused(tiny_engine: Path, tmp_path: Path, text: str) -> None:
    path = tmp_path / MANIFEST
    path.write_text(text)
    with pytest.raises(ValueError, match=r"."):
        read_json(path, 1 << 20)
    with pytest.raises(BatchclsError, match=MANIFEST):
        Manifest.read(tmp_path)
    with pytest.raises(BatchclsError, match=MANIFEST):
        Sidecar.read(path)


def test_text_is_read_as_python_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes("a\r\nb\rc\nä".encode())
    assert read_text(path, 100) == path.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="of 3 at most"):
        read_text(path, 3)
