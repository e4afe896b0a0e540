"""What is no checkpoint is called what it is, and no advice overwrites a file of the user's."""

import gzip
import io
import json
import pickle
import re
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save
from sklearn.linear_model import LogisticRegression
from torch import nn

from batchcls.errors import CheckpointError
from batchcls.networks.architectures import trainable_network
from batchcls.networks.checkpoint import load_network
from batchcls.networks.tensors import read_tensors
from tests.conftest import ALL4, ROOT


def picture(kind: str) -> bytes:
    with io.BytesIO() as stream:
        Image.new("RGB", (8, 8)).save(stream, kind)
        return stream.getvalue()


def keras() -> bytes:
    with io.BytesIO() as stream:
        with zipfile.ZipFile(stream, "w") as archive:
            for name in ("metadata.json", "config.json", "model.weights.h5"):
                archive.writestr(name, "{}")
        return stream.getvalue()


def hdf5(path: Path) -> None:
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(2048))  # h5py need not be here


def arrays(path: Path) -> None:
    with path.open("wb") as stream:
        np.savez(stream, weight=np.zeros(3))


KINDS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "jpeg": (lambda path: path.write_bytes(picture("JPEG")), "is a JPEG image, not a checkpoint"),
    "png": (lambda path: path.write_bytes(picture("PNG")), "is a PNG image"),
    "tiff": (lambda path: path.write_bytes(picture("TIFF")), "is a TIFF image"),
    "pdf": (lambda path: path.write_bytes(b"%PDF-1.7\n"), "is a PDF document"),
    "h5": (hdf5, r"is an HDF5 file, as Keras writes it, not a checkpoint; give it the ending \.h5"),
    "keras": (lambda path: path.write_bytes(keras()), r"is a Keras file, by its content; give it the ending \.keras"),
    "tflite": (lambda path: path.write_bytes(b"\x1c\0\0\0TFL3\x14\0"), "is a network of TensorFlow Lite"),
    "onnx": (
        lambda path: path.write_bytes((ALL4 / "model.onnx").read_bytes()[:1000]),
        r"is an ONNX file, by its content; give it the ending \.onnx",
    ),
    "safetensors": (
        lambda path: path.write_bytes(save({"a": torch.zeros(2)})),
        r"is a safetensors file, by its content; give it the ending \.safetensors",
    ),
    "scikit-learn": (
        lambda path: path.write_bytes(pickle.dumps(LogisticRegression())),
        r"is a pickle of sklearn\.[\w.]+LogisticRegression, and batchcls builds neural networks alone",
    ),
    "npz": (arrays, "is an archive of NumPy arrays"),
    "zip": (lambda path: zipfile.ZipFile(path, "w").writestr("model.pth", b""), "is a ZIP archive, .*unpack it"),
    "gzip": (
        lambda path: path.write_bytes(gzip.compress(b"model")),
        r"is compressed by gzip; unpack it, .*zcat \S+ > \S+_unpacked\.pth",
    ),
    "git lfs": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        "is a pointer of Git LFS .*git lfs pull",
    ),
    "html": (lambda path: path.write_text("<!doctype html><html>log in</html>"), "is a page of HTML .*the download"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_another_kind_is_called_what_it_is(kind: str, tmp_path: Path) -> None:
    write, message = KINDS[kind]
    write(tmp_path / "model.pth")

    with pytest.raises(CheckpointError, match=message) as refusal:
        load_network(tmp_path / "model.pth")

    assert "damaged" not in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("length", [ord("{"), 0x100 + ord("<"), 0x12_0408])
def test_a_safetensors_file_is_read_whatever_its_length_looks_like(length: int, tmp_path: Path) -> None:
    header = json.dumps({"fc.weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).ljust(length)
    (tmp_path / "m.safetensors").write_bytes(struct.pack("<Q", length) + header.encode() + bytes(length))
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):  # for the bytes at its end
        read_tensors(tmp_path / "m.safetensors")

    (tmp_path / "m.safetensors").write_bytes(struct.pack("<Q", length) + header.encode() + bytes(4))
    assert read_tensors(tmp_path / "m.safetensors").keys() == {"fc.weight"}


def test_a_checkpoint_of_pytorch_that_is_called_safetensors_is_called_what_it_is(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2)}, tmp_path / "model.safetensors")

    with pytest.raises(CheckpointError, match=r"is a checkpoint of PyTorch, by its content; give it the ending \.pth"):
        load_network(tmp_path / "model.safetensors")


class Config:
    """What only the program that trained knows."""


def small_network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return trainable_network("cnn", 3)


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda module: module,
        lambda module: {"epoch": 3, "model": module},
        lambda module: {"state_dict": module.state_dict(), "config": Config()},
        lambda module: {"epoch": 3, "net": module.state_dict(), "hyper_parameters": {"net": module}},
    ],
    ids=["whole", "inside", "object beside", "module beside"],
)
def test_the_lines_for_a_pickled_module_save_its_weights_in_a_new_file(
    wrap: Callable[[nn.Module], Any], new: bool, tmp_path: Path
) -> None:
    module, path = small_network(), tmp_path / "m.pth"
    torch.save(wrap(module), path, _use_new_zipfile_serialization=new)
    (tmp_path / "m_state_dict.pth").write_text("another's")
    before = path.read_bytes()

    with pytest.raises(
        CheckpointError, match=r"holds a pickled .* never runs code from a file; if you trust it"
    ) as end:
        load_network(path)

    assert path.read_bytes() == before
    if new or isinstance(wrap(module), nn.Module):  # the old format tells less without being run
        found = re.search(r"(import torch; .*); then: batchcls build (\S+) --labels", str(end.value))
        assert found is not None
        subprocess.run([sys.executable, "-c", found[1]], cwd=ROOT, check=True)
        saved = read_tensors(Path(found[2]))
        assert all(torch.equal(tensor, saved[name]) for name, tensor in module.state_dict().items())
        assert Path(found[2]) == tmp_path / "m_state_dict2.pth"
    assert path.read_bytes() == before
    assert (tmp_path / "m_state_dict.pth").read_text() == "another's"
