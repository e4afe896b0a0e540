"""Engine manifests: what is read, what is refused, and how often a run reads one."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchcls.engine.manifest import Manifest
from batchcls.errors import EngineError
from tests.commandline import run_arguments
from tests.conftest import ALL4, ROOT, draw
from tests.engines import opened_engine

GOOD = json.loads((ALL4 / "engine.json").read_text())
PREPROCESS = GOOD["preprocess"]
ACCURACY = {"images": 9, "accuracy": 0.5, "interval": [0.2, 0.8], "better_labels": ["b", "a"], "better_accuracy": 0.9}
GOOD["verification"]["accuracy"] = ACCURACY
SCALARS = st.none() | st.booleans() | st.integers(-(10**400), 10**400) | st.floats() | st.text(max_size=8)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
PLACES = [(key,) for key in GOOD] + [(key, inner) for key in ("preprocess", "verification") for inner in GOOD[key]]


@pytest.fixture
def engine(tiny_engine: Path, tmp_path: Path) -> Path:
    """An engine folder that the test may break."""
    return Path(shutil.copytree(tiny_engine, tmp_path / "engine"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for one engine.json after the other."""
    return tmp_path_factory.mktemp("manifests")


def read_manifest(folder: Path, content: str | bytes) -> Manifest:
    (folder / "engine.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    return Manifest.read(folder)


def write_fields(engine: Path, **values: Any) -> None:
    path = engine / "engine.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_manifest_is_read_as_it_was_written(folder: Path) -> None:
    manifest = Manifest.read(ALL4)
    manifest.write(folder)
    assert Manifest.read(folder) == manifest


def test_a_manifest_with_and_without_an_accuracy_is_read_as_it_was_written(folder: Path) -> None:
    manifest = read_manifest(folder, json.dumps(GOOD))
    assert manifest.verification is not None
    assert manifest.verification.accuracy is not None
    assert manifest.verification.accuracy.better_labels == ("b", "a")
    manifest.write(folder)
    assert Manifest.read(folder) == manifest

    before = {key: value for key, value in GOOD["verification"].items() if key != "accuracy"}
    old = read_manifest(folder, json.dumps(GOOD | {"verification": before}))
    assert old.verification is not None
    assert old.verification.accuracy is None


@given(value=JSON)
def test_json_that_is_no_manifest_is_an_engine_error(folder: Path, value: Any) -> None:
    with pytest.raises(EngineError, match=r"engine\.json"):
        read_manifest(folder, json.dumps(value))


@given(place=st.sampled_from(PLACES), value=JSON)
def test_a_manifest_with_one_odd_value_is_read_or_an_engine_error(folder: Path, place: Any, value: Any) -> None:
    content = json.loads(json.dumps(GOOD))
    owner = content if len(place) == 1 else content[place[0]]
    owner[place[-1]] = value
    try:
        manifest = read_manifest(folder, json.dumps(content))
    except EngineError:
        return
    assert manifest.labels
    assert all(isinstance(label, str) for label in manifest.labels)
    assert all(type(side) is int for side in manifest.preprocess.size_px)


OF_LATE = {
    "reference",
    "temperature",
    "weights",
    "probes",
    "answers",
    "check",
    "checked_on",
    "exact",
    "features",
    "novelty",
    "conformal",
}
"""Keys that folders of older versions do not have."""


@pytest.mark.parametrize("key", sorted(GOOD.keys() - OF_LATE))
def test_a_manifest_without_one_of_its_keys_is_an_engine_error(folder: Path, key: str) -> None:
    with pytest.raises(EngineError, match=key):
        read_manifest(folder, json.dumps({name: value for name, value in GOOD.items() if name != key}))


@pytest.mark.parametrize(
    "values",
    [
        {"format": 2},
        {"format": "1"},
        {"labels": []},
        {"labels": "Benign"},
        {"labels": [1, 2, 3, 4]},
        {"labels": ["a", "a"]},
        {"labels": ["\ud800", "b"]},
        {"versions": []},
        {"versions": None},
        {"verification": "perfect"},
        {"verification": {"images": 1}},
        {"verification": GOOD["verification"] | {"accuracy": "high"}},
        {"verification": GOOD["verification"] | {"accuracy": {"images": 9}}},
        {"verification": GOOD["verification"] | {"accuracy": ACCURACY | {"interval": [0.2]}}},
        {"verification": GOOD["verification"] | {"accuracy": ACCURACY | {"interval": ["low", "high"]}}},
        {"preprocess": None},
        {"preprocess": PREPROCESS | {"crop": 3}},
        {"preprocess": PREPROCESS | {"size_px": [224, 10**6]}},
        {"preprocess": PREPROCESS | {"size_px": [224.0, 224.0]}},
        {"preprocess": PREPROCESS | {"resize": "squash"}},
        {"preprocess": PREPROCESS | {"mean": [10**400, 0, 0]}},
        {"preprocess": PREPROCESS | {"mean": [float("nan"), 0, 0]}},
        {"preprocess": PREPROCESS | {"std": [0, 1, 1]}},
        {"preprocess": PREPROCESS | {"transform_input": "no"}},
    ],
    ids=str,
)
def test_a_manifest_that_no_build_writes_is_an_engine_error(folder: Path, values: dict[str, Any]) -> None:
    with pytest.raises(EngineError, match=r"engine\.json"):
        read_manifest(folder, json.dumps(GOOD | values))


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"format": ' + b"1" * 10_000 + b"}"], ids=range(5)
)
def test_a_manifest_that_is_not_json_is_an_engine_error(folder: Path, content: bytes) -> None:
    with pytest.raises(EngineError, match=r"engine\.json"):
        read_manifest(folder, content)


def test_a_folder_without_a_manifest_is_no_engine(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="batchcls build"):
        opened_engine(tmp_path, backend="null", threads=1)


def test_a_network_with_one_byte_changed_is_refused(engine: Path) -> None:
    network = engine / "model.onnx"
    content = bytearray(network.read_bytes())
    content[len(content) // 2] ^= 1
    network.write_bytes(content)
    with pytest.raises(EngineError, match="SHA-256"):
        opened_engine(engine, threads=1)


def test_an_engine_without_its_network_is_refused(engine: Path) -> None:
    (engine / "model.onnx").unlink()
    with pytest.raises(EngineError, match=r"model\.onnx"):
        opened_engine(engine, threads=1)


@pytest.mark.parametrize("labels", [["a", "b"], ["a", "b", "c", "d"]], ids=["one less", "one more"])
def test_labels_that_do_not_fit_the_network_are_refused(engine: Path, labels: list[str]) -> None:
    write_fields(engine, labels=labels)
    with pytest.raises(EngineError, match="label"):
        opened_engine(engine, threads=1)


def test_an_image_size_that_is_not_the_networks_is_refused(engine: Path) -> None:
    write_fields(engine, preprocess=PREPROCESS | {"size_px": [64, 64]})
    with pytest.raises(EngineError, match="64"):
        opened_engine(engine, threads=1)


COUNT_READS = """
import sys
reads = 0
def count(event, arguments):
    global reads
    reads += event == "open" and str(arguments[0]).endswith("engine.json")
sys.addaudithook(count)
from batchcls.cli import main
main(sys.argv[1:], standalone_mode=False)
print(reads)
"""


@pytest.mark.parametrize("backend", ["openvino", "null"])
def test_a_run_reads_the_manifest_once(backend: str, tiny_engine: Path, tmp_path: Path) -> None:
    draw(tmp_path / "slides" / "a.jpg")
    arguments = run_arguments(
        tmp_path / "slides", "--engine", tiny_engine, "--out", tmp_path / "o.parquet", "--backend", backend
    )

    process = subprocess.run(
        [sys.executable, "-c", COUNT_READS, *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert process.stdout.splitlines()[-1] == "1"
