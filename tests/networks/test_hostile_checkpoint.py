"""What is no state_dict is refused in one clear line, and no code from it is run."""

import pickle
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from batchcls.errors import CheckpointError
from batchcls.networks.checkpoint import load_network
from batchcls.networks.tensors import read_tensors


class Malice:
    """What a hostile file holds: loading it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize(
    ("save", "message"),
    [
        (torch.save, r"holds a pickled .*open, and batchcls never runs code"),
        (partial(torch.save, _use_new_zipfile_serialization=False), r"holds a pickled .*open, and batchcls never"),
        (lambda content, path: path.write_bytes(pickle.dumps(content)), "is a pickle that torch.save did not write"),
    ],
)
def test_no_code_in_a_file_is_run(save: Callable[[Any, Path], Any], message: str, tmp_path: Path) -> None:
    save({"state_dict": {"fc.weight": torch.zeros(2, 2)}, "config": Malice(tmp_path / "ran")}, tmp_path / "a.pth")

    with pytest.raises(CheckpointError, match=message):
        load_network(tmp_path / "a.pth")
    assert not (tmp_path / "ran").exists()


def torchscript(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), path)


def exported(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(nn.Linear(2, 2), (torch.zeros(1, 2),))
        torch.export.save(program, path.with_suffix(".pt2"))
    path.with_suffix(".pt2").rename(path)


def cut(path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(100, 100)}, path)
    path.write_bytes(path.read_bytes()[:9999])


def zip_bomb(path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(10**7)}, path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (
            lambda path: torch.save(nn.Sequential(nn.Linear(2, 2)), path),
            "pickled torch.nn.modules.container.Sequential",
        ),
        (torchscript, r"is a TorchScript archive, .*torch\.onnx\.export\(.*batchcls build model.onnx"),
        (exported, r"is a \.pt2 archive of torch\.export, .*torch\.onnx\.export\(.*batchcls build model.onnx"),
        (cut, "is damaged, or no checkpoint"),
        (Path.touch, "is empty"),
        (lambda path: path.write_text("weights"), "is damaged, or no checkpoint"),
        (zip_bomb, r"would inflate to 40,\d+,\d+ bytes"),
        (lambda path: torch.save({"fc.weight": torch.zeros(1).expand(10**12)}, path), "claims 4,000,000,000,000"),
        (lambda path: torch.save(torch.zeros(3), path), "holds one Tensor and no state_dict"),
        (
            lambda path: torch.save({"epoch": 3, "optimizer": {}}, path),
            r"holds no weights .*\('epoch', 'optimizer'\)|it holds 'epoch', 'optimizer'",
        ),
    ],
)
def test_what_is_no_state_dict_is_refused(write: Callable[[Path], Any], message: str, tmp_path: Path) -> None:
    write(tmp_path / "a.pth")

    with pytest.raises(CheckpointError, match=message) as refusal:
        load_network(tmp_path / "a.pth")

    assert f"{str(tmp_path / 'a.pth')!r}" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def small_checkpoints() -> dict[str, bytes]:
    state = {"fc.weight": torch.zeros(2, 3), "fc.bias": torch.zeros(2, dtype=torch.float16)}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a"
        torch.save(state, path)
        new = path.read_bytes()
        torch.save(state, path, _use_new_zipfile_serialization=False)
        old = path.read_bytes()
        save_file(state, path)
        return {"new.pth": new, "old.pth": old, "a.safetensors": path.read_bytes()}


SMALL = small_checkpoints()


@settings(max_examples=300)
@given(
    name=st.sampled_from(sorted(SMALL)),
    start=st.integers(0, 1200),
    noise=st.binary(max_size=12),
    cut=st.integers(1, 2000),
    beginning=st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02", b"\x80\x02}q\x00"]),
    random=st.booleans(),
)
def test_a_damaged_file_is_read_or_refused_but_never_a_crash(
    name: str, start: int, noise: bytes, cut: int, beginning: bytes, random: bool
) -> None:
    whole = SMALL[name]
    damaged = beginning + noise * 9 if random else whole[:start] + noise + whole[start + len(noise) :][: cut * 4]
    with TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(damaged)
        with suppress(CheckpointError):
            assert all(isinstance(tensor, Tensor) for tensor in read_tensors(path).values())
