import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchcls.engine.backends import open_engine
from batchcls.engine.manifest import Manifest
from batchcls.errors import EngineError
from tests.conftest import ALL4

GOOD = json.loads((ALL4 / "engine.json").read_text())
PREPROCESS = GOOD["preprocess"]
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


def read(folder: Path, content: str | bytes) -> Manifest:
    (folder / "engine.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    return Manifest.read(folder)


def change(engine: Path, **values: Any) -> None:
    path = engine / "engine.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_manifest_is_read_as_it_was_written(folder: Path) -> None:
    manifest = Manifest.read(ALL4)
    manifest.write(folder)
    assert Manifest.read(folder) == manifest


@given(value=JSON)
def test_json_that_is_no_manifest_is_an_engine_error(folder: Path, value: Any) -> None:
    with pytest.raises(EngineError, match=r"engine\.json"):
        read(folder, json.dumps(value))


@given(place=st.sampled_from(PLACES), value=JSON)
def test_a_manifest_with_one_odd_value_is_read_or_an_engine_error(folder: Path, place: Any, value: Any) -> None:
    content = json.loads(json.dumps(GOOD))
    owner = content if len(place) == 1 else content[place[0]]
    owner[place[-1]] = value
    try:
        manifest = read(folder, json.dumps(content))
    except EngineError:
        return
    assert manifest.labels
    assert all(isinstance(label, str) for label in manifest.labels)
    assert all(type(side) is int for side in manifest.preprocess.size_px)


OF_LATE = {"reference", "temperature", "weights", "probes", "answers", "check", "checked_on"}
"""Keys that folders of older versions do not have."""


@pytest.mark.parametrize("key", sorted(GOOD.keys() - OF_LATE))
def test_a_manifest_without_one_of_its_keys_is_an_engine_error(folder: Path, key: str) -> None:
    with pytest.raises(EngineError, match=key):
        read(folder, json.dumps({name: value for name, value in GOOD.items() if name != key}))


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
        read(folder, json.dumps(GOOD | values))


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"format": ' + b"1" * 10_000 + b"}"], ids=range(5)
)
def test_a_manifest_that_is_not_json_is_an_engine_error(folder: Path, content: bytes) -> None:
    with pytest.raises(EngineError, match=r"engine\.json"):
        read(folder, content)


def test_a_folder_without_a_manifest_is_no_engine(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="batchcls build"):
        open_engine(tmp_path, backend="null", device="cpu", threads=1)


def test_a_network_with_one_byte_changed_is_refused(engine: Path) -> None:
    network = engine / "model.onnx"
    content = bytearray(network.read_bytes())
    content[len(content) // 2] ^= 1
    network.write_bytes(content)
    with pytest.raises(EngineError, match="SHA-256"):
        open_engine(engine, backend="openvino", device="cpu", threads=1)


def test_an_engine_without_its_network_is_refused(engine: Path) -> None:
    (engine / "model.onnx").unlink()
    with pytest.raises(EngineError, match=r"model\.onnx"):
        open_engine(engine, backend="openvino", device="cpu", threads=1)


@pytest.mark.parametrize("labels", [["a", "b"], ["a", "b", "c", "d"]], ids=["one less", "one more"])
def test_labels_that_do_not_fit_the_network_are_refused(engine: Path, labels: list[str]) -> None:
    change(engine, labels=labels)
    with pytest.raises(EngineError, match="label"):
        open_engine(engine, backend="openvino", device="cpu", threads=1)


def test_an_image_size_that_is_not_the_networks_is_refused(engine: Path) -> None:
    change(engine, preprocess=PREPROCESS | {"size_px": [64, 64]})
    with pytest.raises(EngineError, match="64"):
        open_engine(engine, backend="openvino", device="cpu", threads=1)
