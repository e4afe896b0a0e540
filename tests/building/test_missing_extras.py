"""A trained file whose library is not installed is refused with the extra that installs it; TensorFlow's with a way."""

import json
import sys
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from click.testing import CliRunner
from safetensors.numpy import save_file

from batchcls.cli import main

Refusal = Callable[[str, Path], str]


@pytest.fixture
def refusal_without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Refusal:
    """A function from a library and a trained file to the line with which a build ends without the library."""

    def refusal(library: str, source: Path) -> str:
        monkeypatch.setitem(sys.modules, library, None)
        result = CliRunner().invoke(
            main, ["build", str(source), "--out", str(tmp_path / "engine"), "--labels", "a,b", "--device", "cpu"]
        )
        assert result.exit_code == 1, result.output
        assert not (tmp_path / "engine").exists()
        (line,) = result.stderr.splitlines()
        return line

    return refusal


@pytest.mark.parametrize("library", ["keras", "h5py"])
def test_a_keras_file_names_the_extra_that_reads_it(library: str, refusal_without: Refusal, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "net.keras", "w") as archive:
        archive.writestr("config.json", "{}")

    line = refusal_without(library, tmp_path / "net.keras")

    missing = {name for name in ("keras", "h5py") if name == library or not find_spec(name)}
    assert any(f"needs {name}, which is not installed; run: pip install 'batchcls[keras]'" in line for name in missing)


@pytest.mark.parametrize(
    ("library", "configuration"),
    [
        ("transformers", {"model_type": "vit", "architectures": ["ViTForImageClassification"]}),
        ("timm", {"architecture": "test_vit", "pretrained_cfg": {}}),
    ],
)
def test_a_folder_of_hugging_face_names_the_extra_that_reads_it(
    library: str, configuration: dict[str, object], refusal_without: Refusal, tmp_path: Path
) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "config.json").write_text(json.dumps(configuration))
    save_file({}, tmp_path / "net" / "model.safetensors")

    line = refusal_without(library, tmp_path / "net")

    assert f"needs {library}, which is not installed; run: pip install 'batchcls[{library}]'" in line


@pytest.mark.parametrize("name", ["saved", "saved/saved_model.pb"])
def test_a_network_of_tensorflow_is_refused_with_the_way_to_onnx(name: str, tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"\x08\x01\x12\x00")

    result = CliRunner().invoke(
        main, ["build", str(tmp_path / name), "--out", str(tmp_path / "engine"), "--labels", "a,b"]
    )

    assert result.exit_code == 1, result.output
    assert "python -m tf2onnx.convert --saved-model" in result.stderr
    assert len(result.stderr.splitlines()) == 1
