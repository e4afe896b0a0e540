"""The files of a Hugging Face folder, read without following anything out of it."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from batchcls.errors import CheckpointError
from batchcls.networks.tensors import read_tensors
from batchcls.storage.regular_file import read_json

CONFIGURATION = "config.json"
_PREPROCESSOR = "preprocessor_config.json"
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_SHARD = re.compile(r"[\w.-]+\.(safetensors|bin)")
_LARGEST_BYTES = 1 << 24
_MOST_SHARDS = 1000


@dataclass(frozen=True, slots=True)
class HuggingFaceFolder:
    """A folder with ``config.json`` and the files of the weights."""

    path: Path
    configuration: dict[str, Any]
    """The values in ``config.json``."""
    preprocessor: dict[str, Any] | None
    """The values in ``preprocessor_config.json``; None if there is no such file."""
    weights: tuple[Path, ...]
    """The files of the weights; several if they are divided."""

    def tensors(self) -> dict[str, Tensor]:
        """The weights by name, on the CPU.

        Raises:
            CheckpointError: If they cannot be read safely, or two files hold the same one.
        """
        tensors: dict[str, Tensor] = {}
        for path in self.weights:
            part = read_tensors(path)
            if twice := sorted(part.keys() & tensors.keys()):
                raise CheckpointError(f"{str(path)!r} holds {twice[0]!r}, which another file of its folder holds too")
            tensors |= part
        return tensors


def open_folder(path: Path) -> HuggingFaceFolder:
    """The Hugging Face folder at ``path``.

    Raises:
        CheckpointError: If a file is missing, damaged, or a link to elsewhere.
    """
    configuration = _object(path, CONFIGURATION)
    if configuration is None:
        raise CheckpointError(
            f"{str(path)!r} holds no {CONFIGURATION}, so it is no folder of Hugging Face; name a trained file"
        )
    return HuggingFaceFolder(path, configuration, _object(path, _PREPROCESSOR), _weights(path))


def _weights(folder: Path) -> tuple[Path, ...]:
    """The files of the weights: safetensors if there are any, else PyTorch's."""
    for single, index in zip(_WEIGHTS, _INDICES, strict=True):
        if (folder / single).exists():
            return (_inside(folder, single),)
        if (values := _object(folder, index)) is not None:
            return tuple(_inside(folder, name) for name in _shards(folder / index, values))
    others = sorted(
        item.name for item in folder.iterdir() if item.suffix in (".h5", ".msgpack", ".onnx", ".pth", ".pt")
    )
    found = f" (it holds {', '.join(others[:4])})" if others else ""
    raise CheckpointError(
        f"{str(folder)!r} holds neither {_WEIGHTS[0]} nor {_WEIGHTS[1]}{found}; "
        "save it with: model.save_pretrained(DIR)"
    )


def _shards(index: Path, values: dict[str, Any]) -> list[str]:
    """Names of the files that an index divides the weights into."""
    places = values.get("weight_map")
    names = sorted({str(name) for name in places.values()}) if isinstance(places, dict) else []
    if not names or len(names) > _MOST_SHARDS or not all(_SHARD.fullmatch(name) for name in names):
        wrong = next((name for name in names if not _SHARD.fullmatch(name)), "no files")
        raise CheckpointError(f"{str(index)!r} names {wrong[:100]!r}; it must name files of its own folder")
    return names


def _inside(folder: Path, name: str) -> Path:
    """The file ``name`` of ``folder``.

    Links lead to files of the same folder, or to the blobs beside its snapshots, as in the hub's cache.

    Raises:
        CheckpointError: If it is missing, or a link to elsewhere.
    """
    home, file = folder.resolve(), (folder / name).resolve()
    cache = home.parent.parent / "blobs"
    if file.parent not in (home, cache):
        raise CheckpointError(f"{str(folder / name)!r} is a link to {str(file)!r}, outside its folder; copy it there")
    if not file.exists():
        raise CheckpointError(f"{str(folder / name)!r} is missing; fetch the whole folder again")
    return folder / name


def _object(folder: Path, name: str) -> dict[str, Any] | None:
    """The JSON object in the file ``name``; None if there is no such file."""
    if not (folder / name).exists():
        return None
    path = _inside(folder, name)
    try:
        values = read_json(path, _LARGEST_BYTES)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{str(path)!r} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{str(path)!r} must hold a JSON object")
    return values
