"""The tensors of a trained file; no code from the file is ever run."""

import re
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from batchcls.errors import CheckpointError

_AUXILIARY = re.compile(r"(^|\.)(aux1|aux2|AuxLogits)\.")
"""Heads that only training uses."""
_CONTAINERS = ("state_dict", "model_state_dict", "model")
_LARGEST_EXPANSION = 4
"""Tensors may share their storage, as tied weights do; far more than the file holds is an attack on the memory."""
_SHOWN = 4

_UNREADABLE = (
    UnpicklingError,
    RuntimeError,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    MemoryError,
    struct.error,
)
"""What PyTorch's restricted unpickler raises when its input is not what it should be."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a checkpoint by name, without its container; auxiliary heads left out.

    Raises:
        CheckpointError: If the file is damaged, holds something else, or would have to run code to be read.
    """
    values = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    for _ in range(3):
        inner = [values[name] for name in _CONTAINERS if isinstance(values.get(name), Mapping)]
        values = inner[0] if inner else values
    tensors = {name: value for name, value in values.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if not tensors:
        found = ", ".join(map(repr, list(values)[:_SHOWN])) or "nothing"
        raise CheckpointError(
            f"{str(path)!r} holds no weights where they are looked for (it holds {found}); {_save_hint(path)}"
        )
    held = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if held > _LARGEST_EXPANSION * path.stat().st_size:
        raise CheckpointError(f"{str(path)!r} has {path.stat().st_size:,} bytes but claims {held:,} of weights")
    return {name: tensor for name, tensor in tensors.items() if not _AUXILIARY.search(name)}


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{str(path)!r} cannot be read as safetensors: {error}") from error


def _read_torch(path: Path) -> Mapping[str, Any]:
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                inflated = sum(entry.file_size for entry in archive.infolist())
            if inflated > _LARGEST_EXPANSION * path.stat().st_size:
                raise CheckpointError(f"{str(path)!r} would inflate to {inflated:,} bytes; PyTorch never compresses")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it warns of it either reads well or refuses
            values = torch.load(path, map_location="cpu", weights_only=True)
    except (*_UNREADABLE, zipfile.BadZipFile) as error:
        forbidden = re.search(r"GLOBAL ([\w.]+)", str(error))
        if forbidden:
            reason = f"holds a pickled {forbidden[1]}, and batchcls never runs code from a file"
        elif "TorchScript" in str(error):
            reason = "is a TorchScript archive, which is code"
        else:
            first = (str(error).strip() or type(error).__name__).splitlines()[0].partition(". ")[0]
            reason = f"is damaged, or no checkpoint ({first})"
        raise CheckpointError(f"{str(path)!r} {reason}; {_save_hint(path)}") from error
    if not isinstance(values, Mapping):
        raise CheckpointError(f"{str(path)!r} holds a {type(values).__name__}; {_save_hint(path)}")
    return values


def _save_hint(path: Path) -> str:
    return f"in training, run: torch.save(model.state_dict(), {path.name!r})"
